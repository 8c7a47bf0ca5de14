"""Package metadata, and the hand-over of the extension hpcscale._ops to CMake (Linux only)."""

import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class CMakeBuild(build_ext):
    """Build the one extension with CMake; the build folder is kept, so a second build is incremental."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake", "-S", str(ROOT.resolve()), "-B", str(build), "-G", "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        ]  # fmt: skip
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", "_ops"], check=True)


class BuildWithTemplates(build_py):
    """Copies job scripts and image recipes, which lie beside the package in the clone, into the package."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in ("slurm", "containers"):
                shutil.copytree(ROOT / folder, Path(self.build_lib) / "hpcscale" / folder, dirs_exist_ok=True)


if not sys.platform.startswith("linux"):
    sys.exit("hpcscale runs on Linux only")

DEV = [
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "networkx>=3",
    "imagehash>=4.3",
    "pdqhash>=0.2.8",
    "pycocotools>=2.0.11",
    "ruff>=0.9",
    "mypy>=1.14",
    "clang-format>=18",
]
# torchvision's wheel needs CUDA torch; beside another, hpcscale/dense/ops.py stands in for its operators.
DENSE = ["hotcoco>=1.3,<2", "torchvision>=0.28,<0.29"]
ONNX = ["onnx>=1.18", "onnxscript>=0.5", "onnxruntime>=1.22"]
DEMO = ["scikit-image>=0.24"]
BENCH = [
    "cyanure>=1.2",
    "opencv-python-headless>=4.10",
]

setup(
    name="hpcscale",
    version="0.1.0",
    description="Pretrain vision models on weakly labelled pictures on a Slurm cluster, and audit the result",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["hpcscale", "hpcscale.*"]),
    package_data={
        "hpcscale": [
            "configs/*.toml",
            "configs/*/*.toml",
            "dedup/*.html",
            "review/*.html",
            "study/papers/*.csv",
            "study/papers/*.toml",
            "transfer/*.html",
            "py.typed",
        ]
    },
    ext_modules=[Extension("hpcscale._ops", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "build_py": BuildWithTemplates},
    install_requires=[
        "click>=8.1",
        "faiss-cpu>=1.9",
        "h5py>=3.11",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "numpy>=2.0",
        "nvidia-dali-cuda130>=2.0",
        "pillow>=11",
        "psutil>=6",
        "pydantic>=2.8",
        "rich>=13.7",
        "safetensors>=0.4.5",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "simplejpeg>=1.8",
        "torch>=2.13,<2.14",
    ],
    extras_require={
        # Built from its sdist against the torch that is installed: install/setup.sh does it.
        "horovod": ["horovod>=0.28.1,<0.29"],
        "tensorboard": ["tensorboard>=2.18"],
        "onnx": ONNX,
        "dense": DENSE,
        "dev": DEV + DEMO + DENSE + ONNX,
        "demo": DEMO,
        "bench": BENCH + DEMO,
    },
    entry_points={"console_scripts": ["hpcscale=hpcscale.cli:main"]},
)
