"""Try a trained network in the browser: ``python scripts/demo.py --help`` says how."""

from unet.commands.demo import main

if __name__ == "__main__":
    main()
