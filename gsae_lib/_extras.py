"""Packages that not every installation has."""

from importlib.metadata import PackageNotFoundError, version


def require(package: str, extra: str) -> str:
    """The version of an installed package; else ModuleNotFoundError, whose one line says what brings it."""
    try:
        return version(package)
    except PackageNotFoundError:
        raise ModuleNotFoundError(
            f"{package} is not installed: pip install 'gsae_lib[{extra}]'", name=package
        ) from None
