# One image for the superlink, the coordinator and every site. CPU build:  docker build -t fl-rsna .
# CUDA build:  docker build -t fl-rsna:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .
# (PyPI's torch brings CUDA; or name the index of one CUDA version, such as https://download.pytorch.org/whl/cu128.)
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# Torch alone, by exact pin, from an index that is looked at besides PyPI; of one version the build with a suffix (+cpu)
# wins. What torch needs comes with the rest, from PyPI.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-deps --extra-index-url "$TORCH_INDEX" torch==2.13.0

# All other dependencies, so that a change of the code installs none of them again.
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); print('\n'.join(p['build-system']['requires'] + p['project']['dependencies']))" > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt

# Writable by any user, so that new volumes on /state are, too.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin fl \
    && mkdir -p /state /federation/runs && chmod 1777 /state /federation/runs

# The project itself, as a package: the installed code is the only code that runs.
COPY README.md LICENSE ./
COPY conf conf
COPY fl_rsna fl_rsna
RUN pip install --no-deps --no-build-isolation . && python -c "import fl_rsna.simulation.simulation" \
    && rm -rf /build/conf /build/fl_rsna
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1 FLWR_TELEMETRY_ENABLED=0 OMP_NUM_THREADS=1
WORKDIR /federation
USER 10001:10001
CMD ["python", "-m", "fl_rsna.doctor"]
