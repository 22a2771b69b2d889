//! A file system for SQLite that stands before the default one, tells the [recorder](crate::recorder) what passes
//! and lets it refuse calls. It becomes the default of this process: the ledger opens its files as it always does.
//!
//! The one unsafe module. SQLite's interface is a table of C functions over a struct whose first field is a pointer
//! to that table; everything here forwards such a call and decides nothing.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::{Arc, Once};

use rusqlite::ffi::{
    SQLITE_CONFIG_MEMSTATUS, SQLITE_IOCAP_POWERSAFE_OVERWRITE, SQLITE_IOERR, SQLITE_OK,
    SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_WAL, sqlite3_config, sqlite3_file, sqlite3_filename,
    sqlite3_int64, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

use crate::recorder::{Call, FileId, Recorder, Verdict, recorder_of};

/// What SQLite allocates for an open file; `szOsFile` bytes.
#[repr(C)]
struct Shim {
    base: sqlite3_file,
    /// From `Box::into_raw`; null while the file is not open.
    open: *mut Open,
}

/// An open file behind a [`Shim`].
struct Open {
    /// The default file system's own struct, `szOsFile` bytes of it, aligned for anything.
    real: Box<[u128]>,
    recorded: Option<(Arc<Recorder>, FileId)>,
}

impl Open {
    fn real(&mut self) -> *mut sqlite3_file {
        self.real.as_mut_ptr().cast()
    }
}

/// The lower file system's table has a null where it should not: it cannot be called.
const NO_METHOD: c_int = SQLITE_IOERR;

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Version 2 is what a write-ahead log needs; 3 would add memory-mapped reads, which the ledger does not use.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes the shim the default file system of this process, once.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Its counting of memory takes a lock that all threads share. Too late, should SQLite run already: it then
        // refuses, and only counts on.
        // SAFETY: this option takes one int; SQLite refuses it by itself when it has been initialised.
        unsafe { sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) };
        // SAFETY: a null name asks for the default; SQLite initialises itself and returns a pointer that stays
        // valid as long as the process lives, since nobody unregisters it.
        let real = unsafe { sqlite3_vfs_find(ptr::null()) };
        assert!(!real.is_null(), "SQLite has no file system");
        // SAFETY: just looked at, and nobody writes to a registered file system but SQLite to its `pNext`.
        let (version, name_max) = unsafe { ((*real).iVersion, (*real).mxPathname) };
        let shim = sqlite3_vfs {
            iVersion: version.min(2),
            szOsFile: c_int::try_from(size_of::<Shim>()).expect("a small struct"),
            mxPathname: name_max,
            pNext: ptr::null_mut(),
            zName: c"evenkeel-torture".as_ptr(),
            pAppData: real.cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            // Loading extensions is off in the ledger's connections.
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time_64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        };
        // SAFETY: the struct is leaked, so it stays where it is as SQLite demands.
        let code = unsafe { sqlite3_vfs_register(Box::leak(Box::new(shim)), 1) };
        assert_eq!(code, SQLITE_OK, "SQLite takes no other file system");
    });
}

/// Calls the same method of the lower file system; $vfs is the pointer that SQLite handed in.
macro_rules! below {
    ($vfs:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite hands in the struct of `install`, whose `pAppData` is the lower file system, valid for
        // ever; the other arguments are SQLite's own, passed on unchanged.
        unsafe {
            let real: *mut sqlite3_vfs = (*$vfs).pAppData.cast();
            match (*real).$method {
                Some(method) => method(real $(, $argument)*),
                None => NO_METHOD,
            }
        }
    }};
}

/// Calls the same method of the lower file behind an open one.
macro_rules! beneath {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let real = opened($file).real();
        // SAFETY: `open` succeeded for this file, so the lower file system has filled in its struct and the table
        // that it points to; the other arguments are SQLite's own, passed on unchanged.
        unsafe {
            match (*(*real).pMethods).$method {
                Some(method) => method(real $(, $argument)*),
                None => NO_METHOD,
            }
        }
    }};
}

/// The state of an open file.
fn opened<'a>(file: *mut sqlite3_file) -> &'a mut Open {
    // SAFETY: only called by the methods in `METHODS`, which SQLite calls with the struct that `open` filled in and
    // never from two threads at once for one file; the box lives until `close`, the last call for the file.
    unsafe { &mut *(*file.cast::<Shim>()).open }
}

fn path<'a>(name: *const c_char) -> Option<&'a Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite's names end with a NUL and live as long as the call, or, for an open file, as long as the file.
    let name = unsafe { CStr::from_ptr(name) };
    // They are UTF-8, as every path of a workload is.
    Some(Path::new(
        name.to_str().expect("SQLite names files in UTF-8"),
    ))
}

fn offset(from: sqlite3_int64) -> u64 {
    u64::try_from(from).expect("SQLite counts bytes from 0")
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let shim: *mut Shim = file.cast();
    // SAFETY: SQLite allocated `szOsFile` bytes for this. No methods means that it is not to be closed.
    unsafe {
        (*shim).base.pMethods = ptr::null();
        (*shim).open = ptr::null_mut();
    }
    let path = path(name);
    let recorder = path.and_then(recorder_of);
    let mut content = None;
    if let (Some(path), Some(recorder)) = (path, &recorder) {
        match recorder.ask(Call::Open, 0) {
            Verdict::Fail(code) | Verdict::Half(_, code) => return code,
            Verdict::Pass | Verdict::Skip => content = recorder.content_if_unknown(path),
        }
    }
    // SAFETY: as in `below`; `szOsFile` is set at registration and never changed.
    let real_size = unsafe { (*(*vfs).pAppData.cast::<sqlite3_vfs>()).szOsFile };
    let real_size = usize::try_from(real_size).expect("a size");
    let mut open = Box::new(Open {
        real: vec![0; real_size.div_ceil(size_of::<u128>())].into_boxed_slice(),
        recorded: None,
    });
    let real = open.real();
    let code = below!(vfs, xOpen, name, real, flags, flags_out);
    if code != SQLITE_OK {
        // SAFETY: after a failure SQLite itself closes a file whose methods are set, so this does.
        unsafe {
            if let Some(methods) = (*real).pMethods.as_ref()
                && let Some(close) = methods.xClose
            {
                close(real);
            }
        }
        return code;
    }
    if let (Some(path), Some(recorder)) = (path, recorder) {
        let sync_directory = flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL) != 0;
        let id = recorder.opened(path, content, sync_directory);
        open.recorded = Some((recorder, id));
    }
    // SAFETY: as above.
    unsafe {
        (*shim).open = Box::into_raw(open);
        (*shim).base.pMethods = &raw const METHODS;
    }
    SQLITE_OK
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let code = beneath!(file, xClose);
    let shim: *mut Shim = file.cast();
    // SAFETY: the box was made by `open`, and SQLite closes a file once; the pointers are cleared all the same.
    unsafe {
        drop(Box::from_raw((*shim).open));
        (*shim).open = ptr::null_mut();
        (*shim).base.pMethods = ptr::null();
    }
    code
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    buffer: *mut c_void,
    bytes: c_int,
    from: sqlite3_int64,
) -> c_int {
    if let Some((recorder, _)) = &opened(file).recorded
        && let Verdict::Fail(code) | Verdict::Half(_, code) = recorder.ask(Call::Read, 0)
    {
        return code;
    }
    beneath!(file, xRead, buffer, bytes, from)
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    buffer: *const c_void,
    bytes: c_int,
    from: sqlite3_int64,
) -> c_int {
    let Some((recorder, id)) = opened(file).recorded.clone() else {
        return beneath!(file, xWrite, buffer, bytes, from);
    };
    let length = usize::try_from(bytes).expect("a length");
    // SAFETY: SQLite hands in a buffer of that many bytes.
    let data = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), length) };
    let (length, refusal) = match recorder.ask(Call::Write, length) {
        Verdict::Pass | Verdict::Skip => (length, None),
        Verdict::Fail(code) => return code,
        Verdict::Half(length, code) => (length, Some(code)),
    };
    let now = c_int::try_from(length).expect("not more than before");
    let code = beneath!(file, xWrite, buffer, now, from);
    if code == SQLITE_OK {
        recorder.wrote(id, offset(from), &data[..length]);
    }
    refusal.unwrap_or(code)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    let recorded = opened(file).recorded.clone();
    if let Some((recorder, _)) = &recorded
        && let Verdict::Fail(code) | Verdict::Half(_, code) = recorder.ask(Call::Truncate, 0)
    {
        return code;
    }
    let code = beneath!(file, xTruncate, size);
    if let Some((recorder, id)) = recorded
        && code == SQLITE_OK
    {
        recorder.truncated(id, offset(size));
    }
    code
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    let Some((recorder, id)) = opened(file).recorded.clone() else {
        return beneath!(file, xSync, flags);
    };
    match recorder.ask(Call::Sync, 0) {
        Verdict::Pass => {
            let code = beneath!(file, xSync, flags);
            recorder.synced(id, code == SQLITE_OK);
            code
        }
        Verdict::Skip => SQLITE_OK,
        Verdict::Fail(code) | Verdict::Half(_, code) => {
            recorder.synced(id, false);
            code
        }
    }
}

unsafe extern "C" fn delete(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    sync_directory: c_int,
) -> c_int {
    let path = path(name);
    let recorder = path.and_then(recorder_of);
    if let Some(recorder) = &recorder
        && let Verdict::Fail(code) | Verdict::Half(_, code) = recorder.ask(Call::Delete, 0)
    {
        return code;
    }
    let code = below!(vfs, xDelete, name, sync_directory);
    if let (Some(path), Some(recorder)) = (path, recorder)
        && code == SQLITE_OK
    {
        recorder.deleted(path, sync_directory != 0);
    }
    code
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    // What an ordinary disk promises, wherever the recording is made: a write does not damage its neighbours.
    beneath!(file, xDeviceCharacteristics) & SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    beneath!(file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    beneath!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    beneath!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, held: *mut c_int) -> c_int {
    beneath!(file, xCheckReservedLock, held)
}

unsafe extern "C" fn file_control(
    file: *mut sqlite3_file,
    op: c_int,
    argument: *mut c_void,
) -> c_int {
    beneath!(file, xFileControl, op, argument)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    beneath!(file, xSectorSize)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    memory: *mut *mut c_void,
) -> c_int {
    beneath!(file, xShmMap, region, size, extend, memory)
}

unsafe extern "C" fn shm_lock(
    file: *mut sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    beneath!(file, xShmLock, first, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    let real = opened(file).real();
    // SAFETY: as in `beneath`.
    unsafe {
        if let Some(barrier) = (*(*real).pMethods).xShmBarrier {
            barrier(real);
        }
    }
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    beneath!(file, xShmUnmap, delete)
}

unsafe extern "C" fn access(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    result: *mut c_int,
) -> c_int {
    below!(vfs, xAccess, name, flags, result)
}

unsafe extern "C" fn full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    bytes: c_int,
    out: *mut c_char,
) -> c_int {
    below!(vfs, xFullPathname, name, bytes, out)
}

unsafe extern "C" fn randomness(vfs: *mut sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    below!(vfs, xRandomness, bytes, out)
}

unsafe extern "C" fn sleep(vfs: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    below!(vfs, xSleep, microseconds)
}

unsafe extern "C" fn current_time(vfs: *mut sqlite3_vfs, days: *mut f64) -> c_int {
    below!(vfs, xCurrentTime, days)
}

unsafe extern "C" fn last_error(vfs: *mut sqlite3_vfs, bytes: c_int, text: *mut c_char) -> c_int {
    below!(vfs, xGetLastError, bytes, text)
}

unsafe extern "C" fn current_time_64(vfs: *mut sqlite3_vfs, time: *mut sqlite3_int64) -> c_int {
    below!(vfs, xCurrentTimeInt64, time)
}
