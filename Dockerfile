FROM python:3.11-slim
# The file system may be read-only: what libraries keep at home goes where there is room.
ENV HOME=/tmp
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY qaserve qaserve
COPY ingest ingest
COPY train train
COPY ui ui
RUN sed '/^# For make test/,$d' constraints.txt > /tmp/pins.txt \
    && pip install --no-cache-dir --require-hashes --no-deps --requirement /tmp/pins.txt \
    && pip install --no-cache-dir torch==2.13.0 \
    && pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
    && pip check && rm /tmp/pins.txt \
    && useradd --create-home --uid 1000 qaserve \
    && mkdir -p /app/data /app/models && chown -R qaserve /app/data /app/models
USER qaserve
ENTRYPOINT ["qaserve"]
CMD ["serve"]
