"""The one thing pyproject.toml cannot say: the C kernel, built through cffi where a compiler is at hand."""

from setuptools import setup

setup(cffi_modules=["csrc/build_ffi.py:ffi"])
