"""Train a U-Net whose resampling you choose: ``python train.py model.down=strided``; ``--help`` says what else."""

from unet.commands.train import main

if __name__ == "__main__":
    main()
