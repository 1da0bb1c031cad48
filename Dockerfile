# sfss as an image: fronts, nodes and workers are all of it, by their command.
#
#   docker build -t sfss .
#   docker run -e SFSS_ACCESS_ANONYMOUS=read,write -p 127.0.0.1:8255:8255 -v sfss:/var/lib/sfss sfss
#   docker run -v node:/var/lib/sfss sfss sfss node --host 0.0.0.0 --data /var/lib/sfss
#
# compose.yaml and docker/compose.*.yaml have whole services; docs/operations/docker.rst says more.

FROM python:3.11-slim-bookworm AS build
RUN python -m venv /opt/sfss
WORKDIR /src
COPY setup.cfg pyproject.toml README.rst ./
COPY sfss ./sfss
RUN /opt/sfss/bin/pip install --no-cache-dir --disable-pip-version-check '.[catalogue,postgresql,redis]'

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="sfss" \
      org.opencontainers.image.description="Small-file service: files by path over HTTP, kept on storage nodes" \
      org.opencontainers.image.licenses="MIT"

# A fixed number: the files of a volume are its own for years.
RUN groupadd --system --gid 8255 sfss \
 && useradd --system --uid 8255 --gid sfss --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sfss \
 && install -d -o sfss -g sfss -m 700 /var/lib/sfss
COPY --from=build /opt/sfss /opt/sfss
COPY conf /etc/sfss
COPY docker/healthy /usr/local/bin/healthy

# A container is reached by others: sfss wants to be told what everybody may, SFSS_ACCESS_ANONYMOUS, and doesn't start before.
ENV PATH=/opt/sfss/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SFSS_SERVER_HOST=0.0.0.0
USER sfss
# What is relative lies here: the embedded nodes' sfss-data.
WORKDIR /var/lib/sfss
VOLUME /var/lib/sfss
EXPOSE 8255 7900
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["healthy", "http://127.0.0.1:8255/readyz"]
CMD ["sfss"]
