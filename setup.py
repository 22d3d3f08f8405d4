from pathlib import Path

from setuptools import Extension, find_packages, setup

packages = find_packages(include=["ssl_platform", "ssl_platform.*"])

# without a compiler the build goes on, and OpenCV does its work
augment = Extension(
    "ssl_platform.data.crops._augment",
    ["ssl_platform/data/crops/native/augment.cpp"],
    extra_compile_args=[
        "-std=c++17",
        "-O3",
        "-ffp-contract=off",
        # no NaN and no -0 in the arithmetic of pixels: min and max are one instruction each
        "-fno-trapping-math",
        "-ffinite-math-only",
        "-fno-signed-zeros",
    ],
    optional=True,
)

setup(
    name="ssl_platform",
    version="0.1.0",
    description="Self-supervised learning by clustering: SwAV and its relatives, from YAML",
    long_description=Path("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    # the configs lie at the top of a checkout and inside the package of a wheel
    packages=[*packages, "ssl_platform.configs"],
    package_dir={"ssl_platform.configs": "configs"},
    package_data={
        "ssl_platform": ["py.typed", "data/crops/*.pyi"],
        "ssl_platform.configs": ["**/*.yaml"],
        "ssl_platform.reports": ["*.html", "*.css", "*.js", "uplot/*"],
        "ssl_platform.clusters": ["health.html", "page.html", "page.css", "page.js"],
        "ssl_platform.neighbours": ["page.html", "page.css"],
        "ssl_platform.zoo": ["catalogue.yaml"],
    },
    ext_modules=[augment],
    install_requires=[
        "torch>=2.10,<2.15",
        "torchvision>=0.25,<0.30",
        "hydra-core>=1.3.6,<1.4",
        "omegaconf>=2.3,<2.4",
        "fvcore>=0.1.5.post20221221",
        "tensorboard>=2.15",
        "jinja2>=3.1",
        "numpy>=1.26",
        "opencv-python-headless>=4.9",
        "pillow>=10.3",
        "pyarrow>=15",
        "annotated-types>=0.6",
        "pydantic>=2.7",
        "filelock>=3.13",
        "imagecodecs>=2024.6",
        "safetensors>=0.4",
        "scikit-learn>=1.3",
        "scipy>=1.10",
        "simplejpeg>=1.7",
        "tifffile>=2024.8",
        "tqdm>=4.66",
    ],
    extras_require={
        "timm": ["timm>=1.0"],
        "export": ["onnx>=1.16", "onnxscript>=0.5"],
        "slurm": ["submitit>=1.5"],
        "lightning": ["pytorch-lightning>=2.4"],
        "wandb": ["wandb>=0.31"],
        "mlflow": ["mlflow-skinny>=3"],
        "optuna": ["hydra-optuna-sweeper>=1.3"],
        "browser": ["playwright>=1.40"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "pytest-timeout>=2.3",
            "hypothesis>=6.100",
            "submitit>=1.5",
            "timm>=1.0",
            "onnx>=1.16",
            "onnxruntime>=1.18",
            "onnxscript>=0.5",
            "pytorch-lightning>=2.4",
            "wandb>=0.31",
            "mlflow-skinny>=3",
        ],
        "benchmark": ["faiss-cpu>=1.9", "lightly>=1.5"],
        "docs": ["sphinx>=8.1", "furo>=2024.8", "myst-parser>=4"],
        "dev": ["ruff==0.17.6", "mypy==2.4.1", "pre-commit>=4"],
    },
    entry_points={"console_scripts": ["ssl-platform=ssl_platform.cli:main"]},
)
