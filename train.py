"""Train a U-Net with the resampling you choose: ``python train.py model.down=strided``; see ``--help``."""

from unet.commands.train import main

if __name__ == "__main__":
    main()
