"""The one thing pyproject.toml cannot say: the C kernel, built through cffi where a compiler is at hand."""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildKernel(build_ext):
    """The kernel is optional and a failing compiler only a warning: no older kernel may pass for its work."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except BaseException:
            built = Path(self.get_ext_fullpath(ext.name))
            for stale in (built, Path("src", self.get_ext_filename(ext.name))):
                stale.unlink(missing_ok=True)
            raise


setup(cffi_modules=["csrc/build_ffi.py:ffi"], cmdclass={"build_ext": BuildKernel})
