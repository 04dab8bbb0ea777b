"""The commands, a module each with a ``main()``: ``unet-lab NAME``, or ``python -m unet.commands.NAME``."""
