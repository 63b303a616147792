"""Prints what an HDF5 file holds, as JSON: hdf5_list.py FILE. A program of its own, because libhdf5 can be crashed.

No number of a dataset is read here: what is printed is where they are in the file. So no filter is run, no external
storage opened, no virtual dataset followed; and links into other files, or to other names, are passed over.
Exit status: 0 listed, 1 refused with the reason on stdout, 5 h5py is not installed.
"""
import json
import resource
import sys

MAX_MEMORY = 1 << 30
MAX_SECONDS = 5  # of a CPU: a damaged file can make libhdf5 loop; a good one needs half of one
MAX_OBJECTS = 1 << 14  # groups and datasets; Keras's ResNet152 has 1,900
MAX_DEPTH = 8
MAX_NAME = 300


class Refused(Exception):
    pass


def limit_resources():
    for what, limit in ((resource.RLIMIT_AS, MAX_MEMORY), (resource.RLIMIT_CPU, MAX_SECONDS), (resource.RLIMIT_CORE, 0),
                        (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(what, (limit, limit))


def walk(h5py, group, path, found):
    """Collect the datasets under a group, by hard links only, as name -> description."""
    if len(path) > MAX_DEPTH:
        raise Refused(f"has groups more than {MAX_DEPTH} deep")
    for name in group:
        found.seen += 1
        if found.seen > MAX_OBJECTS:
            raise Refused(f"has more than {MAX_OBJECTS} groups and datasets")
        if len(name) > MAX_NAME:
            raise Refused(f"has a name of {len(name)} characters, more than the {MAX_NAME} that are read")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        item = group[name]
        if isinstance(item, h5py.Dataset):
            found["/".join((*path, name))] = description(h5py, item)
        elif isinstance(item, h5py.Group):
            walk(h5py, item, (*path, name), found)


class Found(dict):
    seen = 0


def description(h5py, dataset):
    """dtype, shape, position and size of a dataset that is in the file in one piece; else why it is not."""
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if properties.get_nfilters() or layout == h5py.h5d.CHUNKED:
        return "chunked or compressed"
    if properties.get_external_count() or layout == h5py.h5d.VIRTUAL:
        return "kept in other files"
    if layout != h5py.h5d.CONTIGUOUS or dataset.id.get_offset() is None:
        return "kept in the file's index"
    return [dataset.dtype.str, list(dataset.shape or ()), dataset.id.get_offset(), dataset.id.get_storage_size()]


def main(path):
    sys.path.pop(0)  # this folder, whose modules are not those that h5py means
    try:
        import h5py
    except ImportError:
        return 5
    limit_resources()
    try:
        found = Found()
        with h5py.File(path, "r", locking=False) if h5py.version.hdf5_version_tuple >= (1, 12, 1) else (
                h5py.File(path, "r")) as file:
            walk(h5py, file, (), found)
        print(json.dumps(found))
        return 0
    except Refused as error:
        print(error)
    except Exception:  # what h5py raises for a damaged file is any of them
        print("is a damaged HDF5 file")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
