# Two images: the server (--target server, also the default) and the browser viewer (--target viewer).
# Neither needs root, and both run with a read-only root file system; docs/administrator.md has the commands.

FROM python:3.11.11-slim-bookworm AS viewer
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HOME=/tmp
# Not pinned: Debian keeps only the newest version of a package, so a pinned one soon cannot be installed.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libgl1 libglu1-mesa libosmesa6 libxrender1 libxt6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home ctfindings
WORKDIR /app
COPY plugins/client plugins/client
COPY plugins/viewer plugins/viewer
RUN python -m pip install --no-deps -r plugins/viewer/requirements.txt ./plugins/client
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/index.html', timeout=5)"]
ENTRYPOINT ["python", "plugins/viewer/start_viewer.py", "--host", "0.0.0.0"]

FROM python:3.11.11-slim-bookworm AS server
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 HOME=/var/lib/ctfindings
RUN useradd --uid 10001 --no-create-home ctfindings \
    && install --directory --mode=0700 --owner=10001 --group=10001 /var/lib/ctfindings
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY bundle bundle
RUN python -m pip install --index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch \
    && python -m pip install -c constraints.txt -e '.[label]' \
    && python -m pip install -c constraints.txt --no-deps monailabel pydicom-seg
COPY configs configs
COPY docs/README.md docs/README.md
COPY models models
COPY plugins/monailabel plugins/monailabel
USER 10001
EXPOSE 8000
VOLUME ["/var/lib/ctfindings"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
ENTRYPOINT ["python", "plugins/monailabel/start_server.py", "--host", "0.0.0.0", "--studies", "/scans", \
    "--conf", "work", "/var/lib/ctfindings"]
