//! What the disk does by itself: 8 KiB of a file that has its size already, overwritten and made durable.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// What one entry makes SQLite write, about: two pages.
const BLOCK_BYTES: usize = 8 << 10;
const BLOCKS: u64 = 2048;

pub(crate) struct Disk {
    file: File,
    block: Vec<u8>,
    next: u64,
}

impl Disk {
    /// Allocates the file and syncs it, so that later only data is written.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let mut file = File::create(directory.join("raw"))?;
        let block = vec![7; BLOCK_BYTES];
        for _ in 0..BLOCKS {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        Ok(Self {
            file,
            block,
            next: 0,
        })
    }

    /// So many durable overwrites. How long they took.
    pub(crate) fn sync(&mut self, times: u32) -> io::Result<Duration> {
        let begun = Instant::now();
        for _ in 0..times {
            let at = self.next % BLOCKS * BLOCK_BYTES as u64;
            self.next += 1;
            self.file.seek(SeekFrom::Start(at))?;
            self.file.write_all(&self.block)?;
            self.file.sync_data()?;
        }
        Ok(begun.elapsed())
    }
}
