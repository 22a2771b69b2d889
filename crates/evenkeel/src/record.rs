//! `[watchdog] record`: every sample as a line of JSON, for `evenkeel replay`. Bounded: at its limit the file is moved
//! aside once, over the one before.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use evenkeel_detect::follow::Point;
use evenkeel_detect::{Sample, SampleValue, SeriesId};

/// Largest file, in bytes; there are two at most.
const FILE_LEN_MAX: u64 = 256 * 1024 * 1024;

/// Writes samples.
#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
    file: BufWriter<File>,
    len: u64,
    /// It has been said that it cannot be written.
    failed: bool,
}

impl Record {
    /// Goes on at the end of what is there.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = append(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            len,
            failed: false,
        })
    }

    /// Writes the samples of one check. A full disk costs the record and nothing else.
    pub(crate) fn write(&mut self, samples: &[Sample]) {
        let written = self.try_write(samples);
        self.tell(written);
    }

    /// The same for points of followed series; one whose name is too long for a sample is left out.
    pub(crate) fn write_points<'a>(&mut self, points: impl Iterator<Item = Point<'a>>) {
        let samples: Vec<Sample> = points
            .filter_map(|p| {
                Some(Sample {
                    at: p.at,
                    series: SeriesId::new(p.series).ok()?,
                    value: SampleValue::Value {
                        service: p.service.map(str::to_owned),
                        measure: p.kind,
                        value: p.value,
                        n: p.n,
                    },
                })
            })
            .collect();
        self.write(&samples);
    }

    fn tell(&mut self, written: std::io::Result<()>) {
        match written {
            Ok(()) => self.failed = false,
            Err(e) if !self.failed => {
                self.failed = true;
                tracing::warn!(
                    subsystem = "watchdog",
                    "the record {} cannot be written: {e}",
                    self.path.display()
                );
            }
            Err(_) => {}
        }
    }

    fn try_write(&mut self, samples: &[Sample]) -> std::io::Result<()> {
        for sample in samples {
            let mut line = serde_json::to_vec(sample)?;
            line.push(b'\n');
            self.file.write_all(&line)?;
            self.len += line.len() as u64;
        }
        self.file.flush()?;
        if self.len >= FILE_LEN_MAX {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            std::fs::rename(&self.path, aside)?;
            self.file = BufWriter::new(append(&self.path)?);
            self.len = 0;
        }
        Ok(())
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
