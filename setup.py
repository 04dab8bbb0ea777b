"""The packages to build; pyproject.toml has the rest. configs/ is installed as unet/configs."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["unet", "unet.*"]), "unet.configs"], package_dir={"unet.configs": "configs"})
