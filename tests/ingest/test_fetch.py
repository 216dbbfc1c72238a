import hashlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from ingest import fetch as fetching
from ingest.fetch import COMMIT, DOCUMENTS_URL, FILE_NAME, MANIFEST, SHA256, URL, fetch, fetch_documents
from qaserve.common.errors import FetchError

BODY = b'{"question": "q", "answer": "a"}\n' * 100
HASH = hashlib.sha256(BODY).hexdigest()
DOCUMENTS = {"a.md": b"# A\n", "deep/b.md": b"# B\n", "deep/c%20d.md": b"# C\n"}
BRIEF = httpx.Timeout(10.0)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/corpus")
            self.end_headers()
            return
        if self.path.startswith("/documents/"):
            name = self.path.removeprefix("/documents/")
            body = DOCUMENTS.get(name) if len(self.server.requests) <= self.server.answers else None
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")
            return
        body = {"/corpus": BODY, "/altered": BODY + b" ", "/empty": b"", "/cut": BODY}.get(self.path)
        self.send_response(404 if body is None else 200)
        body = b"not here" if body is None else body
        self.send_header("Content-Length", str(len(body) + (50 if self.path == "/cut" else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server of this machine; its `requests` are the paths that were asked for."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        server.answers = 1_000
        server.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, folder, path="/corpus", on_bytes=None):
    return fetch(folder, on_bytes, url=server.address + path, sha256=HASH, timeout=BRIEF)


def get_documents(server, folder):
    listed = {name.replace("%20", " "): hashlib.sha256(body).hexdigest() for name, body in DOCUMENTS.items()}
    manifest = folder / "manifest"
    manifest.write_text("".join(f"{sha256}  {name}\n" for name, sha256 in listed.items()))
    return fetch_documents(folder, url=f"{server.address}/documents", manifest=manifest, timeout=BRIEF)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_pinned_address_names_the_pinned_commit_and_hash():
    assert f"/{COMMIT}/" in URL
    assert URL.startswith("https://")
    assert URL.endswith(FILE_NAME)
    assert len(SHA256) == 64


def test_a_file_with_the_right_hash_is_kept(server, tmp_path):
    path = get(server, tmp_path)
    assert path == tmp_path / FILE_NAME
    assert path.read_bytes() == BODY
    assert names(tmp_path) == [FILE_NAME]


def test_the_folder_is_made(server, tmp_path):
    assert get(server, tmp_path / "deep" / "er").read_bytes() == BODY


def test_progress_adds_up_to_the_size(server, tmp_path):
    counted = []
    get(server, tmp_path, on_bytes=counted.append)
    assert sum(counted) == len(BODY)


def test_redirects_are_followed(server, tmp_path):
    assert get(server, tmp_path, "/moved").read_bytes() == BODY
    assert server.requests == ["/moved", "/corpus"]


def test_the_second_fetch_asks_nobody(server, tmp_path):
    first = get(server, tmp_path)
    counted = []
    assert get(server, tmp_path, on_bytes=counted.append) == first
    assert server.requests == ["/corpus"]
    assert counted == []


def test_a_file_that_was_altered_on_disk_is_downloaded_again(server, tmp_path):
    get(server, tmp_path).write_bytes(BODY[:-1])
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests == ["/corpus", "/corpus"]


@pytest.mark.parametrize("path", ["/altered", "/empty"])
def test_a_wrong_hash_leaves_no_file(server, tmp_path, path):
    with pytest.raises(FetchError, match=rf"{path} has SHA-256 [0-9a-f]{{64}}, not {HASH}") as caught:
        get(server, tmp_path, path)
    assert "nothing of it was read" in caught.value.hint
    assert names(tmp_path) == []


def test_a_wrong_hash_leaves_an_earlier_file_as_it_was(server, tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"earlier")
    with pytest.raises(FetchError, match="has SHA-256"):
        get(server, tmp_path, "/altered")
    assert (tmp_path / FILE_NAME).read_bytes() == b"earlier"
    assert names(tmp_path) == [FILE_NAME]


def test_a_missing_page_is_an_error_that_names_its_status(server, tmp_path):
    with pytest.raises(FetchError, match=r"/nowhere cannot be downloaded: .*404") as caught:
        get(server, tmp_path, "/nowhere")
    assert isinstance(caught.value.__cause__, httpx.HTTPStatusError)
    assert "CORPUS=" in caught.value.hint
    assert names(tmp_path) == []


def test_a_connection_that_breaks_leaves_no_file(server, tmp_path):
    with pytest.raises(FetchError, match=r"/cut cannot be downloaded: "):
        get(server, tmp_path, "/cut")
    assert names(tmp_path) == []


def test_a_refused_connection_is_an_error(server, tmp_path):
    with socket.socket() as bound:  # bound but not listening: the port is refused, and nobody else can take it
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/corpus"
        with pytest.raises(FetchError, match=f"{url} cannot be downloaded: .+") as caught:
            fetch(tmp_path, url=url, sha256=HASH, timeout=BRIEF)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert "Check the network" in caught.value.hint
    assert names(tmp_path) == []


def test_a_server_that_never_answers_is_given_up(server, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/corpus"
        with pytest.raises(FetchError, match=r"cannot be downloaded: .+") as caught:
            fetch(tmp_path, url=url, sha256=HASH, timeout=httpx.Timeout(10.0, read=0.05))
    assert isinstance(caught.value.__cause__, httpx.ReadTimeout)
    assert caught.value.__cause__.request.extensions["timeout"]["read"] == 0.05
    assert names(tmp_path) == []


def test_too_many_bytes_are_cut_off(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_BYTES", len(BODY) - 1)
    with pytest.raises(FetchError, match=rf"/corpus sends more than {len(BODY) - 1:,} bytes"):
        get(server, tmp_path)
    assert names(tmp_path) == []


def test_as_many_bytes_as_allowed_are_taken(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "MAX_BYTES", len(BODY))
    assert get(server, tmp_path).read_bytes() == BODY


def test_what_a_dead_process_left_half_written_does_no_harm(server, tmp_path):
    left = tmp_path / ".fetch-dead"
    left.write_bytes(BODY[:50])
    assert get(server, tmp_path).read_bytes() == BODY
    assert get(server, tmp_path).read_bytes() == BODY
    assert server.requests == ["/corpus"]


def test_an_interrupt_leaves_no_scratch_file(server, tmp_path):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        get(server, tmp_path, on_bytes=interrupt)
    assert names(tmp_path) == []


@pytest.mark.parametrize("below", ["", "deep"])
def test_a_folder_that_cannot_be_written_is_an_error_before_any_request(server, tmp_path, below):
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(FetchError, match=rf"{file / below} cannot be written: .+") as caught:
        get(server, file / below)
    assert "QASERVE_DATA_DIR" in caught.value.hint
    assert file.read_text() == "not a folder"
    assert server.requests == []


def test_a_folder_in_the_files_place_is_an_error(server, tmp_path):
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(FetchError, match="cannot be written: Is a directory"):
        get(server, tmp_path)
    assert names(tmp_path) == [FILE_NAME]


# Documents


def test_documents_come_with_their_folders(server, tmp_path):
    folder = get_documents(server, tmp_path)
    assert folder == tmp_path / "skills"
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.md")} == {
        name.replace("%20", " "): body for name, body in DOCUMENTS.items()
    }
    get_documents(server, tmp_path)
    assert len(server.requests) == len(DOCUMENTS)


def test_an_interrupted_download_of_documents_goes_on(server, tmp_path):
    server.answers = 1
    with pytest.raises(FetchError, match=r"/documents/deep/b\.md cannot be downloaded: .*404"):
        get_documents(server, tmp_path)
    assert sorted(path.name for path in (tmp_path / "skills").rglob("*") if path.is_file()) == ["a.md"]
    server.answers = 1_000
    get_documents(server, tmp_path)
    assert server.requests.count("/documents/a.md") == 1


def test_an_altered_document_is_refused(server, tmp_path):
    manifest = tmp_path / "manifest"
    manifest.write_text(f"{'0' * 64}  a.md\n")
    with pytest.raises(FetchError, match=rf"/documents/a\.md has SHA-256 [0-9a-f]{{64}}, not {'0' * 64}"):
        fetch_documents(tmp_path, url=f"{server.address}/documents", manifest=manifest, timeout=BRIEF)
    assert list((tmp_path / "skills").iterdir()) == []


def test_the_manifest_that_ships_names_the_public_documents(real_corpus):
    listed = dict(reversed(line.split(maxsplit=1)) for line in MANIFEST.read_text().splitlines())
    folder = real_corpus.parents[1] / "skills"
    assert listed == {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.md")
    }
    assert DOCUMENTS_URL.startswith("https://")
    assert "/dd2ca0605a6c6ad9060e614d6a075186a46a93ad/" in DOCUMENTS_URL
