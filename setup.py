"""What importing, training and serving need; `constraints.txt` pins what was tested."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "dmkeras" / "__init__.py").read_text()).group(1)

SERVE = [
    "tensorflow-serving-api",
    "grpcio",
    "grpcio-health-checking",
    "starlette",
    "uvicorn",
    "httptools",  # uvicorn's fast parser of HTTP
    "uvloop",
    "prometheus-client",
]

setup(
    name="dmkeras",
    version=VERSION,
    description="The classics of deep vision as Keras models: trained, proved by laws, served",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["dmkeras", "dmkeras.*"]),
    install_requires=[
        "tensorflow>=2.21",
        "keras>=3.15",
        "tensorflow-probability==0.25.*",
        "tf_keras",  # imported by tensorflow-probability, which does not declare it
        "setuptools",  # its distutils, which tensorflow-probability imports, left Python 3.12
        "tensorboard",  # tf.summary's writers; no longer a requirement of tensorflow
        "keras-cv==0.9.*",
        "tensorflow-datasets",
        "importlib_resources",  # imported by tensorflow-datasets, which does not declare it
        "scikit-learn",
        "scipy",
        "matplotlib",
        "Pillow",
        "pycocotools",
    ],
    extras_require={
        "serve": SERVE,
        "proposals": ["opencv-contrib-python-headless"],
        "registration": ["SimpleITK"],
        "gpu": ["tensorflow[and-cuda]"],
        "dev": [
            *SERVE,
            "pytest",
            "pytest-xdist",
            "ruff",
            "hypothesis",
            "schemathesis",
            "kubernetes-validate",
            "jsonschema",
            "PyYAML",
            "scikit-image",
            "SimpleITK",
            "openvino",
            "ai-edge-litert",
        ],
        "peers": ["torch", "captum", "tf-keras-vis", "onnxruntime", "tf2onnx"],
    },
    entry_points={"console_scripts": ["dmkeras = dmkeras.serving.cli:main"]},
)
