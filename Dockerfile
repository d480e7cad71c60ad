# The experiment image: CUDA 13.0, Rust 1.95.0 and libtorch 2.11.0. It holds no source: the project is mounted at
# /workspace by env_shell/start_experiment_container.sh, which also builds it when missing.
#
# The "base" CUDA image is enough, because the torch wheel brings its own CUDA libraries (cuBLAS, cuDNN, NCCL …);
# `--build-arg BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04` adds nvcc. Works on a machine without a GPU too.
ARG BASE=nvidia/cuda:13.0.2-base-ubuntu24.04
FROM ${BASE}

ARG RUST=1.95.0
ARG TORCH=2.11.0

ENV DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        build-essential ca-certificates curl git less pkg-config python3 python3-pip python3-venv unzip \
    && rm -rf /var/lib/apt/lists/*

# libtorch: the wheel with its CUDA libraries, in a virtual environment that the peers' benchmarks can use as well.
# LIBTORCH wins over .cargo/config.toml, so the host's own .libtorch link does no harm in here.
RUN python3 -m venv /opt/python \
    && /opt/python/bin/pip install --no-cache-dir "torch==${TORCH}" numpy \
    && ln -s "$(/opt/python/bin/python -c 'import os, torch; print(os.path.dirname(torch.__file__))')" /opt/libtorch
ENV LIBTORCH=/opt/libtorch LIBTORCH_CXX11_ABI=1 PATH=/opt/python/bin:$PATH

# Rust through rustup, readable by every user; what cargo downloads goes to /cache (see below).
ENV RUSTUP_HOME=/opt/rustup
RUN curl --proto '=https' --tlsv1.2 -fsSL https://sh.rustup.rs -o /tmp/rustup.sh \
    && CARGO_HOME=/opt/cargo sh /tmp/rustup.sh -y --no-modify-path --profile minimal \
        --default-toolchain "${RUST}" --component rustfmt --component clippy \
    && rm /tmp/rustup.sh && chmod -R a+rX /opt/rustup /opt/cargo
ENV PATH=/opt/cargo/bin:$PATH

# Any user may run the container (--user): a home and a cache that all may write. A new named volume on /cache takes
# over the mode of this folder.
RUN mkdir -p /home/anyo /cache/cargo /cache/target && chmod 1777 /home/anyo /cache /cache/cargo /cache/target \
    && git config --system --add safe.directory /workspace
ENV HOME=/home/anyo CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/cache/target ANYO_CACHE=/cache

WORKDIR /workspace
CMD ["bash"]
