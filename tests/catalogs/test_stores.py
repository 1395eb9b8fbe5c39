"""What every store promises: whole or not there, created once, fetched once and checked, nothing left by the dead."""

import hashlib
import multiprocessing
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import obstore
import pytest
from moto.server import ThreadedMotoServer

import catalogs.remote_stores
from catalogs.objects import ObjectStore
from catalogs.remote_stores import RemoteStore
from catalogs.stores import LocalStore, Store, open_store
from catalogs.workspace import Settings
from schemas.errors import WorldlineError


@pytest.fixture(scope="module")
def s3_port() -> Iterator[int]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield port
    server.stop()


def s3_store(port: int, cache: Path) -> RemoteStore:
    bucket = hashlib.sha256(str(cache).encode()).hexdigest()[:20]
    request = urllib.request.Request(f"http://127.0.0.1:{port}/{bucket}", method="PUT")
    urllib.request.urlopen(request).close()
    options = {"endpoint": f"http://127.0.0.1:{port}", "region": "us-east-1", "allow_http": "true"}
    return RemoteStore(f"s3://{bucket}/some/prefix", options, cache)


@pytest.fixture(params=["folder", "memory", "file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return LocalStore(tmp_path / "home")
    if request.param == "s3":
        return s3_store(request.getfixturevalue("s3_port"), tmp_path / "cache")
    return remote(request.param, tmp_path)


def remote(kind: str, tmp_path: Path, **other: Any) -> RemoteStore:
    (tmp_path / "bucket").mkdir(exist_ok=True)
    return RemoteStore(f"{kind}://{tmp_path}/bucket", {}, tmp_path / "cache", **other)


@pytest.fixture
def memory(tmp_path: Path) -> RemoteStore:
    return remote("memory", tmp_path)


def place(store: Store, name: str, data: bytes, *, new: bool = False) -> None:
    with store.new_file() as path:
        path.write_bytes(data)
        store.place(path, name, new=new)


def name_of(data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return f"objects/{digest[:2]}/{digest[2:]}"


def place_object(store: Store, data: bytes) -> str:
    place(store, name_of(data), data)
    return name_of(data)


def test_a_placed_file_is_found_whole(store: Store) -> None:
    began = time.time()
    name = place_object(store, b"hello")
    assert store.local(name).read_bytes() == b"hello"
    assert store.local(name).is_relative_to(store.folder)
    assert b"".join(store.blocks(name)) == b"hello"
    assert store.size(name) == 5
    modified = store.modified(name)
    assert modified is not None
    assert began - 2 <= modified <= time.time() + 2
    assert not list(store.folder.parent.rglob("incoming/*"))


def test_a_missing_file_is_told(store: Store) -> None:
    name = name_of(b"nobody placed this")
    assert store.size(name) is None
    assert store.modified(name) is None
    for read in (store.local, lambda name: list(store.blocks(name))):
        with pytest.raises(FileNotFoundError):
            read(name)
    store.remove([name])


def test_placing_again_replaces_and_removing_removes(store: Store) -> None:
    place(store, "tables/a", b"one")
    place(store, "tables/a", b"two!")
    place(store, "tables/deep/b", b"three")
    place(store, "other/c", b"four")
    assert store.local("tables/a").read_bytes() == b"two!"
    assert list(store.names("tables")) == list(store.names("tables/")) == ["tables/a", "tables/deep/b"]
    assert {entry.name: entry.size for entry in store.entries("tables")} == {"tables/a": 4, "tables/deep/b": 5}
    store.remove(["tables/a", "tables/gone"])
    assert list(store.names("tables")) == ["tables/deep/b"]
    assert store.size("tables/a") is None
    with pytest.raises(FileNotFoundError):
        store.local("tables/a")


def test_a_name_is_created_once_and_the_loser_keeps_its_file(store: Store) -> None:
    place(store, "tables/a", b"first", new=True)
    with store.new_file() as path:
        path.write_bytes(b"second")
        with pytest.raises(FileExistsError):
            store.place(path, "tables/a", new=True)
        assert path.read_bytes() == b"second"
    assert store.local("tables/a").read_bytes() == b"first"


def test_of_many_threads_that_create_one_name_exactly_one_wins(store: Store) -> None:
    start = threading.Barrier(8)

    def race(number: int) -> int | None:
        start.wait()
        try:
            place(store, "tables/raced", str(number).encode(), new=True)
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(race, range(8)) if number is not None]
    assert len(winners) == 1
    assert b"".join(store.blocks("tables/raced")) == str(winners[0]).encode()


def test_a_large_file_travels_in_parts_and_comes_back_equal(store: Store, tmp_path: Path) -> None:
    data = os.urandom(21 << 20)
    objects = ObjectStore(store)
    (tmp_path / "video").write_bytes(data)
    sha256 = objects.put(tmp_path / "video")
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert objects.verify(sha256)
    assert objects.path(sha256, again=True).read_bytes() == data


def test_objects_are_put_once_listed_verified_and_discarded(store: Store, tmp_path: Path) -> None:
    objects = ObjectStore(store)
    (tmp_path / "given").write_bytes(b"given")
    (tmp_path / "taken").write_bytes(b"taken")
    names = [objects.put(tmp_path / "given"), objects.put(tmp_path / "taken", take=True), objects.put_bytes(b"bytes")]
    assert objects.put(tmp_path / "given") == names[0]
    assert objects.put(objects.path(names[1])) == names[1]
    assert (tmp_path / "given").exists()
    assert not (tmp_path / "taken").exists()
    assert list(objects.all()) == sorted(names)
    assert all(map(objects.verify, names))
    objects.discard(names[:1])
    assert not objects.exists(names[0])
    assert not objects.verify(names[0])
    assert list(objects.all()) == sorted(names[1:])


def test_a_given_object_costs_no_second_copy_and_never_replaces_a_file(store: Store, tmp_path: Path) -> None:
    objects = ObjectStore(store)
    sha256 = objects.put_bytes(b"report" * 100)
    objects.give(sha256, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == b"report" * 100
    with pytest.raises(FileExistsError):
        objects.give(sha256, tmp_path / "report.html")
    assert not list(tmp_path.glob(".*.tmp"))
    linked = os.path.samefile(tmp_path / "report.html", objects.path(sha256))
    assert linked or not (objects.path(sha256).stat().st_nlink > 1)  # a reflink is a file of its own


def test_a_given_object_is_copied_where_links_are_impossible(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    objects = ObjectStore(store)
    sha256 = objects.put_bytes(b"report")
    monkeypatch.setattr(os, "link", refuse)
    objects.give(sha256, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"report"
    assert not os.path.samefile(tmp_path / "copy", objects.path(sha256))


# -- remote stores ----------------------------------------------------------------------------------------------------


def damage(store: RemoteStore, name: str, data: bytes) -> None:
    """Change the stored bytes behind the store's back."""
    obstore.put(store._client, name, data)


def test_a_remote_file_is_fetched_once(memory: RemoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = place_object(memory, b"hello")
    elsewhere = RemoteStore(memory.url, {}, tmp_path / "other host")
    assert elsewhere.local(name).read_bytes() == b"hello"
    monkeypatch.setattr(obstore, "get", lambda *_: pytest.fail("fetched again"))
    assert elsewhere.local(name).read_bytes() == b"hello"


def test_a_damaged_remote_object_is_told_and_never_cached(memory: RemoteStore, tmp_path: Path) -> None:
    name = place_object(memory, b"hello")
    damage(memory, name, b"hellO")
    elsewhere = RemoteStore(memory.url, {}, tmp_path / "other host")
    with pytest.raises(WorldlineError, match=f"{name.split('/')[-1][:14]}.* is damaged"):
        elsewhere.local(name)
    assert not [path for path in (tmp_path / "other host" / "files").rglob("*") if path.is_file()]
    assert not ObjectStore(memory).verify(name.replace("objects", "").replace("/", ""))  # the stored bytes, not our good copy


def test_a_damaged_copy_is_fetched_again(memory: RemoteStore) -> None:
    name = place_object(memory, b"hello")
    copy = memory.local(name)
    copy.chmod(0o644)
    copy.write_bytes(b"hellO")
    assert memory.local(name, again=True).read_bytes() == b"hello"


def test_an_interrupted_download_leaves_nothing_in_the_cache(memory: RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    name = place_object(memory, b"x" * 5_000_000)
    memory.local(name).unlink()
    whole = catalogs.remote_stores.RemoteStore.blocks

    def broken(self: RemoteStore, name: str) -> Iterator[bytes]:
        yield next(whole(self, name))[:1000]
        raise WorldlineError("the network went away")

    with monkeypatch.context() as patch:
        patch.setattr(catalogs.remote_stores.RemoteStore, "blocks", broken)
        with pytest.raises(WorldlineError, match="network"):
            memory.local(name)
    assert not [path for path in memory.cache_folder.rglob("*") if path.is_file() and path.parent.name != "users"]
    assert memory.local(name).stat().st_size == 5_000_000


def fetch_and_die(url: str, cache: Path, name: str) -> None:
    store = RemoteStore(url, {}, cache)
    catalogs.remote_stores.sync_file = lambda path: os.kill(os.getpid(), signal.SIGKILL)
    store.local(name)


def test_a_process_killed_while_fetching_leaves_what_the_next_sweep_removes(tmp_path: Path, processes: ForkServerContext) -> None:
    store = remote("file", tmp_path)
    name = place_object(store, b"hello")
    cache = tmp_path / "other host"
    worker = processes.Process(target=fetch_and_die, args=(store.url, cache, name))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    elsewhere = RemoteStore(store.url, {}, cache)
    assert not (elsewhere.folder / name).exists()
    assert elsewhere.sweep() == 1
    assert elsewhere.local(name).read_bytes() == b"hello"


def test_the_cache_forgets_what_was_used_longest_ago_and_nothing_that_a_living_process_was_given(tmp_path: Path) -> None:
    first = remote("memory", tmp_path, cache_gb=30e-6)  # 30 kB
    names = [place_object(first, bytes([number]) * 10_000) for number in range(6)]
    copies = [first.folder / name for name in names]
    assert all(copy.exists() for copy in copies)  # this process may use them all
    for number, copy in enumerate(copies):
        os.utime(copy, (1000 + number, 1000 + number))  # as if handed out by processes that are gone
    used_again = first.local(names[0])
    newest = place_object(first, b"new" * 3_000)
    assert [copy.exists() for copy in copies] == [True, False, False, False, False, True]
    assert used_again.exists()
    assert first.local(newest).exists()
    assert first.local(names[2]).read_bytes() == bytes([2]) * 10_000


def test_thousands_of_objects_are_checked_with_a_few_requests(memory: RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [place_object(memory, str(number).encode()) for number in range(1500)]
    fresh = RemoteStore(memory.url, {}, memory.cache_folder)
    heads, lists = counted(monkeypatch, "head"), counted(monkeypatch, "list")
    assert all(fresh.size(name) for name in names)
    assert len(heads) <= 40
    assert len(lists) == 1


def test_a_store_too_large_to_list_is_listed_by_folder(memory: RemoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [place_object(memory, str(number).encode()) for number in range(1000)]
    monkeypatch.setattr(catalogs.remote_stores, "_LISTED_AT_ONCE", 100)
    fresh = RemoteStore(memory.url, {}, memory.cache_folder)
    heads, lists = counted(monkeypatch, "head"), counted(monkeypatch, "list")
    assert [fresh.size(name) for name in names] == [len(str(number)) for number in range(1000)]
    assert len(heads) <= 40
    assert len(lists) <= 258


def test_an_object_that_another_host_removed_is_missing_once_it_was_looked_for(memory: RemoteStore) -> None:
    names = [place_object(memory, str(number).encode()) for number in range(100)]
    fresh = RemoteStore(memory.url, {}, memory.cache_folder.with_name("other host"))
    assert all(fresh.size(name) for name in names)
    memory.remove(names[:1])
    with pytest.raises(FileNotFoundError):
        fresh.local(names[0])
    assert fresh.size(names[0]) is None


def test_a_remote_object_is_uploaded_again_only_when_it_is_a_day_old(
    memory: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = ObjectStore(memory)
    sha256 = objects.put_bytes(b"hello")
    puts = counted(monkeypatch, "put")
    assert objects.put_bytes(b"hello") == objects.put(objects.path(sha256)) == sha256
    assert not puts
    now = time.time()
    monkeypatch.setattr(catalogs.remote_stores.time, "time", lambda: now + 90_000)
    assert objects.put_bytes(b"hello") == objects.put(objects.path(sha256)) == sha256
    assert len(puts) == 2


def counted(monkeypatch: pytest.MonkeyPatch, function: str) -> list[object]:
    calls: list[object] = []
    original: Callable[..., Any] = getattr(obstore, function)

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(obstore, function, call)
    return calls


def test_a_process_opens_a_store_once_however_often_its_workspace_is_opened(tmp_path: Path) -> None:
    settings = Settings(store=f"memory://{tmp_path}")
    opened = [open_store(tmp_path, settings) for _ in range(50)]
    assert all(store is opened[0] for store in opened)
    assert len(list((tmp_path / "cache" / "users").iterdir())) == 1
    assert open_store(tmp_path / "another", settings) is not opened[0]


def test_a_store_that_cannot_be_used_is_told_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WorldlineError, match="endpont"):
        open_store(tmp_path, Settings(store="s3://bucket", store_options={"endpont": "http://x"}))
    with pytest.raises(WorldlineError, match="cache_gb"):
        open_store(tmp_path, Settings(store="s3://bucket", store_options={"cache_gb": "many"}))
    options = {"endpoint": "http://127.0.0.1:9", "allow_http": "true", "region": "x", "skip_signature": "true"}
    unreachable = open_store(tmp_path, Settings(store="s3://bucket", store_options=options))
    with pytest.raises(WorldlineError, match=r"the store s3://bucket could not be used .*: check its URL") as caught:
        unreachable.size("objects/ab/c")
    assert "\n" not in str(caught.value)


def test_a_forked_process_is_told_that_it_can_only_read_copies(memory: RemoteStore) -> None:
    name = place_object(memory, b"hello")
    missing = place_object(memory, b"not copied")
    memory.local(missing).unlink()
    answers: Any = multiprocessing.get_context("fork").SimpleQueue()

    def read() -> None:
        answers.put(memory.local(name).read_bytes())
        try:
            memory.local(missing)
        except WorldlineError as error:
            answers.put(str(error))

    child = multiprocessing.get_context("fork").Process(target=read)
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert answers.get() == b"hello"
    assert "cannot be used in a forked process" in answers.get()
