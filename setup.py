"""The one thing pyproject.toml cannot say: the C kernel, built through cffi where a compiler is at hand."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildKernel(build_ext):
    """The kernel is optional and a failing compiler only a warning: no older kernel may pass for its work.

    Its files are compiled side by side: each takes the better part of a minute.
    """

    def build_extension(self, ext: Extension) -> None:
        one_by_one = self.compiler.compile

        def compile(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor() as pool:
                made = pool.map(lambda source: one_by_one([source], **options), sources)
                return [name for names in made for name in names]

        self.compiler.compile = compile
        try:
            super().build_extension(ext)
        except BaseException:
            built = Path(self.get_ext_fullpath(ext.name))
            for stale in (built, Path("src", self.get_ext_filename(ext.name))):
                stale.unlink(missing_ok=True)
            raise


setup(cffi_modules=["csrc/build_ffi.py:ffi"], cmdclass={"build_ext": BuildKernel})
