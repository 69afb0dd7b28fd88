"""libbpf (libbpf.so.1, version 1.1 or later) in cffi's ABI mode: no compiler and no headers where the agent runs.

libbpf tells its troubles through a function it is given. They go to this module's logger, and to whoever listens with
`messages`, so that an error can repeat them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from cffi import FFI

from agent.net.bpf.errors import BpfUnavailableError

NAME: Final = "libbpf.so.1"
_LONGEST_MESSAGE: Final = 4096
_MOST_MESSAGES: Final = 64

_logger = logging.getLogger(__name__)

ffi: Final[Any] = FFI()
ffi.cdef(
    """
    struct bpf_object_open_opts {
        size_t sz; const char *object_name; bool relaxed_maps; const char *pin_root_path; uint32_t unused;
        const char *kconfig; const char *btf_custom_path; char *kernel_log_buf; size_t kernel_log_size;
        uint32_t kernel_log_level; };
    struct bpf_map_create_opts {
        size_t sz; uint32_t btf_fd; uint32_t btf_key_type_id; uint32_t btf_value_type_id;
        uint32_t btf_vmlinux_value_type_id; uint32_t inner_map_fd; uint32_t map_flags; uint64_t map_extra;
        uint32_t numa_node; uint32_t map_ifindex; };
    struct bpf_link_create_opts { size_t sz; uint32_t flags; void *iter_info; uint32_t iter_info_len;
        uint32_t target_btf_id; uint64_t of_kind[5]; };
    struct bpf_test_run_opts {
        size_t sz; const char *data_in; char *data_out; uint32_t data_size_in; uint32_t data_size_out;
        const char *ctx_in; char *ctx_out; uint32_t ctx_size_in; uint32_t ctx_size_out; uint32_t retval;
        int repeat; uint32_t duration; uint32_t flags; uint32_t cpu; uint32_t batch_size; };

    struct bpf_object *bpf_object__open_mem(const char *data, size_t size, const struct bpf_object_open_opts *options);
    int bpf_object__load(struct bpf_object *);
    void bpf_object__close(struct bpf_object *);
    struct bpf_program *bpf_object__next_program(struct bpf_object *, struct bpf_program *);
    struct bpf_map *bpf_object__next_map(struct bpf_object *, struct bpf_map *);
    const char *bpf_program__name(const struct bpf_program *);
    int bpf_program__set_autoload(struct bpf_program *, bool);
    int bpf_program__fd(const struct bpf_program *);
    const char *bpf_map__name(const struct bpf_map *);
    int bpf_map__fd(const struct bpf_map *);
    int bpf_map__type(const struct bpf_map *);
    uint32_t bpf_map__key_size(const struct bpf_map *);
    uint32_t bpf_map__value_size(const struct bpf_map *);
    uint32_t bpf_map__max_entries(const struct bpf_map *);
    int bpf_map__set_max_entries(struct bpf_map *, uint32_t);

    int bpf_map_create(int kind, const char *name, uint32_t key_size, uint32_t value_size, uint32_t entries,
                       const struct bpf_map_create_opts *options);
    int bpf_map_update_elem(int fd, const char *key, const char *value, uint64_t flags);
    int bpf_map_lookup_elem(int fd, const char *key, char *value);
    int bpf_map_delete_elem(int fd, const char *key);
    int bpf_map_get_next_key(int fd, const char *key, char *next);
    int bpf_map_lookup_batch(int fd, const char *from, char *to, char *keys, char *values, uint32_t *count,
                             const void *options);

    int bpf_prog_load(int kind, const char *name, const char *license, const char *instructions, size_t count,
                      const void *options);
    int bpf_obj_get_info_by_fd(int fd, char *information, uint32_t *size);
    int bpf_link_create(int program, int interface, int kind, const struct bpf_link_create_opts *options);
    int bpf_prog_test_run_opts(int program, struct bpf_test_run_opts *options);

    struct ring_buffer *ring_buffer__new(int fd, int (*sample)(void *, void *, size_t), void *context,
                                         const void *options);
    void ring_buffer__free(struct ring_buffer *);
    int ring_buffer__consume(struct ring_buffer *);

    int libbpf_num_possible_cpus(void);
    const char *libbpf_version_string(void);
    void *libbpf_set_print(int (*print)(int level, const char *format, void *arguments));
    int vsnprintf(char *text, size_t size, const char *format, void *arguments);
    """
)

_listening = threading.local()
_kept: list[Any] = []


@cache
def library() -> Any:  # noqa: ANN401 - cffi has no types
    """The library, loaded once.

    Raises:
        BpfUnavailableError: it is not installed.
    """
    try:
        loaded = ffi.dlopen(NAME)
        version = ffi.string(loaded.libbpf_version_string()).decode()
    except (OSError, AttributeError) as error:
        raise BpfUnavailableError(f"{NAME} cannot be loaded ({error}): apt install libbpf1") from error
    if _numbers(version) < (1, 1):
        raise BpfUnavailableError(f"libbpf {version} is too old, 1.1 is needed: apt install libbpf1")
    _redirect_messages(loaded)
    return loaded


def version() -> str:
    """Version of libbpf, such as "v1.1".

    Raises:
        BpfUnavailableError: it is not installed.
    """
    return str(ffi.string(library().libbpf_version_string()).decode())


@contextmanager
def messages() -> Iterator[list[str]]:
    """What libbpf complains of on this thread in the meantime."""
    found: list[str] = []
    before, _listening.to = getattr(_listening, "to", None), found
    try:
        yield found
    finally:
        _listening.to = before


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.lstrip("v").split(".")[:2] if part.isdigit())


def _redirect_messages(loaded: Any) -> None:  # noqa: ANN401
    format_into = ffi.dlopen(None).vsnprintf

    def take(level: int, template: Any, arguments: Any) -> int:  # noqa: ANN401
        # A va_list is a pointer, or is passed as one, on every architecture Debian has with 64 bits.
        text = ffi.new("char[]", _LONGEST_MESSAGE)
        format_into(text, _LONGEST_MESSAGE, template, arguments)
        line = ffi.string(text).decode(errors="replace").rstrip()
        found = getattr(_listening, "to", None)
        if level == 0 and found is not None and len(found) < _MOST_MESSAGES:
            found.append(line.removeprefix("libbpf: "))
        # Who called libbpf raises an error that repeats what matters.
        _logger.log(logging.INFO if level == 0 else logging.DEBUG, "%s", line)
        return 0

    try:
        printer = ffi.callback("int(int, const char *, void *)", take, error=0)
    except MemoryError:  # no executable memory for us (SELinux): without its words, then
        printer = ffi.NULL
    _kept.append(printer)
    loaded.libbpf_set_print(printer)
