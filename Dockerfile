FROM python:3.11-slim
# The file system may be read-only: what libraries keep at home goes where there is room.
ENV HOME=/tmp
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY qaserve qaserve
COPY ingest ingest
COPY train train
COPY ui ui
RUN pip install --no-cache-dir --constraint constraints.txt --editable '.[all]' \
    && useradd --create-home --uid 1000 qaserve \
    && mkdir -p /app/data /app/models && chown -R qaserve /app/data /app/models
USER qaserve
ENTRYPOINT ["qaserve"]
CMD ["serve"]
