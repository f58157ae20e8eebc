"""Packaging: `pip install .` is the edge alone, `pip install '.[train]'` the workstation."""

from pathlib import Path

from setuptools import find_packages, setup

# The oldest versions that these ranges allow are in tests/oldest.txt; the test suite was run with them and with the
# newest.

# ai-edge-litert has no wheels for 32-bit ARM; tflite-runtime, its predecessor, has them up to Python 3.11.
ON_ARM32 = "platform_machine == 'armv7l'"
INTERPRETER = [
    "ai-edge-litert>=2.1,<2.4; platform_machine != 'armv7l'",
    f"tflite-runtime==2.14.0; {ON_ARM32}",
    f"numpy<2; {ON_ARM32}",
]

TRAIN = [
    "tensorflow>=2.21,<2.22",
    "tf-keras>=2.21,<2.22",
    "tensorflow-model-optimization>=0.8.1,<0.9",
    # The last release: what the Bayesian compressors use of it was tried with this one.
    "tensorflow-probability>=0.25,<0.26",
    # What kernels compute, and from which version on, was tried with this one; and its flatbuffer schema is used.
    "ai-edge-litert>=2.3,<2.4",
    "flatbuffers>=25.9.23",
    "scipy>=1.13,<2",
    "gymnasium[mujoco]>=1.2,<1.5",
    "mujoco>=3.3,<4",
    "tyro>=1.0,<2",
    "rich>=14,<16",
    "tensorboard>=2.20,<2.22",
    "matplotlib>=3.9,<4",
    "pyyaml>=6.0,<7",
]
# `ray.cancel` interrupts a running task as Ctrl-C would, and actors are restarted: tried with this version.
RAY = ["ray>=2.60,<3"]
SIGN = ["cryptography>=42"]
SERIAL = ["pyserial>=3.5,<4"]
ONNX = ["onnx>=1.17,<2"]
ONNXRUNTIME = ["onnxruntime>=1.20,<2"]
HIL = ["pyzmq>=26,<28"]
# gpiozero's older releases do not find the pins of a Pi 5 on a newer kernel, or not without GPIOZERO_PIN_FACTORY.
GPIOZERO = "gpiozero>=2.0.1.post3,<3"
# lgpio has wheels up to Python 3.12; from there on it comes from the distribution (python3-lgpio).
GPIO = [GPIOZERO, "lgpio>=0.2.2,<0.3; sys_platform == 'linux' and python_version < '3.13'"]
# labmaze, which dm_control asks for and its suite does not use, has wheels up to Python 3.12.
DMC = ["dm-control>=1.0.28,<2; python_version < '3.13'"]
ATARI = ["ale-py>=0.11,<0.13", "opencv-python-headless>=4.10,<6"]
# Compared with Gymnasium and dm_control in this version (docs/environments.md); it has wheels from Python 3.11 on.
ENVPOOL = ["envpool>=1.2.5,<1.3; sys_platform == 'linux' and platform_machine == 'x86_64' and python_version >= '3.11'"]
# Gymnasium's own extra asks, in its older releases, for a package that has to be compiled.
BOX2D = ["box2d>=2.3.10,<3", "pygame>=2.6,<3"]
# One of the example policies is for a Box2D environment.
BENCH = ["gymnasium[box2d]", "stable-baselines3>=2.9,<2.10", *ONNX, *ONNXRUNTIME]
TEST = [
    GPIOZERO,
    *DMC,
    *ATARI,
    *ENVPOOL,
    *BOX2D,
    "pytest>=8,<10",
    "pytest-xdist>=3.6,<4",
    "hypothesis>=6.100,<7",
    "ruff>=0.12",
    "mypy>=1.15",
]
# For benchmarks alone: its tfp-nightly lies where tensorflow-probability does (Makefile), and the JAX that was measured
# has no release for Python 3.10.
SBX = ["sbx-rl>=0.28,<0.29; python_version >= '3.11'"]

setup(
    name="tfqrl",
    version="0.1.0",
    description="Deep reinforcement learning policies, from training to quantised control loops on small computers",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["tfqrl*", "converters*", "edge*"]),
    package_data={**{package: ["py.typed"] for package in ("tfqrl", "converters", "edge")}, "tfqrl.zoo": ["*.yaml"]},
    install_requires=["numpy>=1.26,<3", *INTERPRETER],
    extras_require={
        "train": [*TRAIN, *SIGN, *HIL],
        "sign": SIGN,
        "study": RAY,
        "actorq": RAY,
        "serial": SERIAL,
        "hil": HIL,
        "gpio": GPIO,
        "onnx": ONNX,
        "dmc": DMC,
        "atari": ATARI,
        "envpool": ENVPOOL,
        "bench": [*TRAIN, *RAY, *BENCH, *SBX, *DMC, *ATARI, *ENVPOOL],
        "test": [*TRAIN, *RAY, *SIGN, *SERIAL, *HIL, *ONNX, *ONNXRUNTIME, *TEST],
        "all": [*TRAIN, *RAY, *SIGN, *SERIAL, *HIL, *GPIO, *BENCH, *TEST],
    },
    entry_points={"console_scripts": ["tfqrl = tfqrl.__main__:main", "tfqrl-edge = edge.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
