//! Tiles (C2SP `tlog-tiles`): a log as static files that never change, but for the last one of each level.
//!
//! A tile is up to 256 hashes of one level, 32 bytes each; the hashes of level `L + 1` are the roots of the full
//! tiles of level `L`, those of level 0 leaf hashes. Beside each tile of level 0 stands the bundle of its entries.
//!
//! | path | what |
//! |---|---|
//! | `tile/0/x001/x234/067` | tile 1234067 of level 0, full |
//! | `tile/1/000.p/8` | the first 8 hashes of tile 0 of level 1 |
//! | `tile/entries/000.p/8` | the first 8 entries |
//!
//! An entry here is the canonical leaf of a ledger's entry: its RFC 6962 leaf hash is the hash in the tile.

use std::fmt;
use std::str::FromStr;

use crate::Hash;

/// Hashes or entries in a full tile.
pub const TILE_WIDTH: u16 = 256;

/// The highest level that a path can name.
pub const LEVEL_MAX: u8 = 63;

/// The longest entry in a bundle, in bytes: its length is written in two.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// `tile/entries/`, seven groups of an index and a width: no path is longer.
const PATH_BYTES_MAX: usize = 64;

/// What a tile holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// Hashes of this level, 0 to [`LEVEL_MAX`].
    Hashes(u8),
    /// Entries.
    Entries,
}

/// One file of the log: which, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    content: Content,
    index: u64,
    width: u16,
}

/// Why a tile cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TileError {
    /// The level is above [`LEVEL_MAX`].
    #[error("a tile's level is at most {LEVEL_MAX}, not {0}")]
    Level(u8),
    /// The width is 0 or above [`TILE_WIDTH`].
    #[error("a tile's width is 1 to {TILE_WIDTH}, not {0}")]
    Width(u64),
    /// The path is not spelled as that of a tile.
    #[error("not the path of a tile")]
    Path,
    /// The tile's bytes are not as many as its width asks for.
    #[error("the tile has {bytes} bytes, which is not 32 for each hash")]
    Length {
        /// How many it has.
        bytes: usize,
    },
    /// The entry does not fit a bundle.
    #[error("an entry has at most {ENTRY_BYTES_MAX} bytes, not {bytes}")]
    EntryLength {
        /// How many it has.
        bytes: usize,
    },
    /// The bundle ends within an entry.
    #[error("the entry bundle ends within its entry {entry}")]
    CutOff {
        /// Which entry of the bundle, from 0.
        entry: usize,
    },
}

impl Tile {
    /// The first `width` entries or hashes of the tile `index`.
    pub fn new(content: Content, index: u64, width: u16) -> Result<Self, TileError> {
        if let Content::Hashes(level) = content
            && level > LEVEL_MAX
        {
            return Err(TileError::Level(level));
        }
        if width == 0 || width > TILE_WIDTH {
            return Err(TileError::Width(u64::from(width)));
        }
        Ok(Self {
            content,
            index,
            width,
        })
    }

    /// What it holds.
    pub fn content(&self) -> Content {
        self.content
    }

    /// Which tile of its level, from 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries, 1 to [`TILE_WIDTH`].
    pub fn width(&self) -> u16 {
        self.width
    }

    /// The tiles of hashes of a log with so many entries, level by level, each level from the left.
    pub fn of_log(size: u64) -> impl Iterator<Item = Self> {
        (0..=LEVEL_MAX)
            .map_while(move |level| {
                let hashes = size.checked_shr(u32::from(level) * 8).unwrap_or(0);
                (hashes > 0).then_some((level, hashes))
            })
            .flat_map(|(level, hashes)| row(Content::Hashes(level), hashes))
    }

    /// The entry bundles of a log with so many entries, from the left.
    pub fn entries_of_log(size: u64) -> impl Iterator<Item = Self> {
        row(Content::Entries, size)
    }

    /// Reads a path as `Display` writes it.
    pub fn parse(path: &str) -> Result<Self, TileError> {
        parse_path(path).ok_or(TileError::Path)
    }
}

/// Full tiles, then perhaps one that is not.
fn row(content: Content, count: u64) -> impl Iterator<Item = Tile> {
    let full = count / u64::from(TILE_WIDTH);
    let rest = u16::try_from(count % u64::from(TILE_WIDTH)).unwrap_or(0);
    (0..full)
        .map(|index| (index, TILE_WIDTH))
        .chain((rest > 0).then_some((full, rest)))
        .map(move |(index, width)| Tile {
            content,
            index,
            width,
        })
}

/// The path of a tile of hashes, relative to the log's prefix.
pub fn path(level: u8, index: u64, width: u16) -> Result<String, TileError> {
    Tile::new(Content::Hashes(level), index, width).map(|tile| tile.to_string())
}

/// The path of an entry bundle, relative to the log's prefix.
pub fn entries_path(index: u64, width: u16) -> Result<String, TileError> {
    Tile::new(Content::Entries, index, width).map(|tile| tile.to_string())
}

/// The path relative to the log's prefix.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.content {
            Content::Hashes(level) => write!(f, "tile/{level}/")?,
            Content::Entries => f.write_str("tile/entries/")?,
        }
        // Groups of three digits, all but the last with an x, so that no file has a directory's name.
        let digits = self.index.checked_ilog(1000).unwrap_or(0);
        for group in (1..=digits).rev() {
            write!(f, "x{:03}/", self.index / 1000_u64.pow(group) % 1000)?;
        }
        write!(f, "{:03}", self.index % 1000)?;
        if self.width < TILE_WIDTH {
            write!(f, ".p/{}", self.width)?;
        }
        Ok(())
    }
}

impl FromStr for Tile {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        Self::parse(path)
    }
}

fn parse_path(path: &str) -> Option<Tile> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    let (content, rest) = path.strip_prefix("tile/")?.split_once('/')?;
    let content = match content {
        "entries" => Content::Entries,
        level => Content::Hashes(level.parse().ok()?),
    };
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => (index, width.parse().ok()?),
        None => (rest, TILE_WIDTH),
    };
    let mut number = 0_u64;
    for group in index.split('/') {
        let group: u64 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
        number = number.checked_mul(1000)?.checked_add(group)?;
    }
    let tile = Tile::new(content, number, width).ok()?;
    // One spelling: signs, spare zeros, a missing x and a width of 256 are told by writing it again.
    (tile.to_string() == path).then_some(tile)
}

/// A tile's bytes.
pub fn encode_hashes(hashes: &[Hash]) -> Result<Vec<u8>, TileError> {
    check_width(hashes.len())?;
    Ok(hashes.iter().flat_map(|hash| *hash.as_bytes()).collect())
}

/// The hashes in a tile's bytes.
pub fn decode_hashes(bytes: &[u8]) -> Result<Vec<Hash>, TileError> {
    let (hashes, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        let bytes = bytes.len();
        return Err(TileError::Length { bytes });
    }
    check_width(hashes.len())?;
    Ok(hashes.iter().copied().map(Hash::from_bytes).collect())
}

/// An entry bundle's bytes: for each entry its length, 2 bytes big endian, and itself.
pub fn encode_entries<E: AsRef<[u8]>>(entries: &[E]) -> Result<Vec<u8>, TileError> {
    check_width(entries.len())?;
    let mut bytes = Vec::new();
    for entry in entries {
        let entry = entry.as_ref();
        let length = u16::try_from(entry.len())
            .map_err(|_| TileError::EntryLength { bytes: entry.len() })?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// The entries in an entry bundle's bytes.
pub fn decode_entries(mut bytes: &[u8]) -> Result<Vec<&[u8]>, TileError> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let cut_off = TileError::CutOff {
            entry: entries.len(),
        };
        check_width(entries.len() + 1)?;
        let (length, rest) = bytes.split_first_chunk().ok_or(cut_off)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or(cut_off)?;
        entries.push(entry);
        bytes = rest;
    }
    check_width(entries.len())?;
    Ok(entries)
}

fn check_width(count: usize) -> Result<(), TileError> {
    if (1..=usize::from(TILE_WIDTH)).contains(&count) {
        Ok(())
    } else {
        Err(TileError::Width(count as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_spelled_as_specified() {
        let cases = [
            (path(0, 1_234_067, 256), "tile/0/x001/x234/067"),
            (path(0, 0, 256), "tile/0/000"),
            (path(63, 999, 255), "tile/63/999.p/255"),
            (path(1, 1000, 1), "tile/1/x001/000.p/1"),
            (path(2, 1_000_000, 256), "tile/2/x001/x000/000"),
            (entries_path(273, 112), "tile/entries/273.p/112"),
            (
                entries_path(u64::MAX, 255),
                "tile/entries/x018/x446/x744/x073/x709/x551/615.p/255",
            ),
        ];
        for (found, expected) in cases {
            let found = found.unwrap();
            assert_eq!(found, expected);
            assert_eq!(found.parse::<Tile>().unwrap().to_string(), expected);
        }
        assert_eq!(path(64, 0, 1), Err(TileError::Level(64)));
        assert_eq!(path(0, 0, 0), Err(TileError::Width(0)));
        assert_eq!(entries_path(0, 257), Err(TileError::Width(257)));
    }

    #[test]
    fn other_spellings_are_refused() {
        for wrong in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "/tile/0/000",
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/+1/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/data/000",
            "tile/0/x000/001",
            "tile/0/001/000",
            "tile/0/x001",
            "tile/0/x001/x000",
            "tile/0/1000",
            "tile/0/+01",
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/000.p/256",
            "tile/0/000.p/1/",
            "tile/0/000.p/1.p/1",
            "tile/0/000/",
            "tile/0/../000",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/999",
        ] {
            assert_eq!(Tile::parse(wrong), Err(TileError::Path), "{wrong:?}");
        }
    }

    /// The specification's own examples.
    #[test]
    fn a_log_has_the_tiles_that_the_specification_counts() {
        let tiles: Vec<Tile> = Tile::of_log(70_000).collect();
        let count = |level, full: bool| {
            tiles
                .iter()
                .filter(|tile| tile.content() == Content::Hashes(level))
                .filter(|tile| (tile.width() == TILE_WIDTH) == full)
                .count()
        };
        assert_eq!((count(0, true), count(0, false)), (273, 1));
        assert_eq!((count(1, true), count(1, false)), (1, 1));
        assert_eq!((count(2, true), count(2, false)), (0, 1));
        assert_eq!(tiles.len(), 277);
        for path in ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"] {
            assert!(tiles.contains(&path.parse().unwrap()), "{path}");
        }
        let paths: Vec<String> = Tile::of_log(256).map(|tile| tile.to_string()).collect();
        assert_eq!(paths, ["tile/0/000", "tile/1/000.p/1"]);
        assert_eq!(Tile::of_log(0).count(), 0);
        assert_eq!(Tile::entries_of_log(0).count(), 0);
        let last = Tile::entries_of_log(70_000).last().unwrap();
        assert_eq!(last.to_string(), "tile/entries/273.p/112");
        assert_eq!((last.index(), last.width()), (273, 112));
        assert!(Tile::of_log(u64::MAX).next().is_some());
    }

    #[test]
    fn bundles_and_tiles_have_their_bounds() {
        assert_eq!(
            encode_entries(&[&b"a"[..], b"", b"bc"]).unwrap(),
            b"\0\x01a\0\0\0\x02bc"
        );
        let none: [&[u8]; 0] = [];
        assert_eq!(encode_entries(&none), Err(TileError::Width(0)));
        assert_eq!(encode_entries(&[b""; 257]), Err(TileError::Width(257)));
        assert_eq!(decode_entries(&[0; 514]), Err(TileError::Width(257)));
        assert_eq!(decode_entries(&[0; 512]).unwrap().len(), 256);
        assert_eq!(decode_entries(&[]), Err(TileError::Width(0)));
        assert_eq!(
            encode_entries(&[vec![0; ENTRY_BYTES_MAX + 1]]),
            Err(TileError::EntryLength {
                bytes: ENTRY_BYTES_MAX + 1
            })
        );
        let longest = encode_entries(&[vec![7; ENTRY_BYTES_MAX]]).unwrap();
        assert_eq!(decode_entries(&longest).unwrap()[0].len(), ENTRY_BYTES_MAX);
        for cut in [&b"\0"[..], b"\0\x01", b"\xff\xffabc"] {
            assert_eq!(decode_entries(cut), Err(TileError::CutOff { entry: 0 }));
        }
        assert_eq!(decode_hashes(&[]), Err(TileError::Width(0)));
        assert_eq!(
            decode_hashes(&[0; 33]),
            Err(TileError::Length { bytes: 33 })
        );
        assert_eq!(decode_hashes(&[0; 257 * 32]), Err(TileError::Width(257)));
    }

    proptest! {
        #[test]
        fn paths_read_back(level in 0..=LEVEL_MAX, index: u64, shift in 0_u32..64, width in 1..=TILE_WIDTH) {
            for content in [Content::Hashes(level), Content::Entries] {
                let tile = Tile::new(content, index >> shift, width).unwrap();
                prop_assert_eq!(Tile::parse(&tile.to_string()), Ok(tile));
            }
        }

        #[test]
        fn no_path_panics(path: String, tail in "[0-9x/.p+]{0,40}") {
            let _ = Tile::parse(&path);
            if let Ok(tile) = Tile::parse(&format!("tile/0/{tail}")) {
                prop_assert_eq!(tile.to_string(), format!("tile/0/{tail}"));
            }
        }

        #[test]
        fn bundles_read_back(entries in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..20), 1..20,
        )) {
            let bytes = encode_entries(&entries).unwrap();
            prop_assert_eq!(decode_entries(&bytes).unwrap(), entries);
        }

        #[test]
        fn what_is_read_is_written(bytes in proptest::collection::vec(0_u8..4, 0..100)) {
            if let Ok(entries) = decode_entries(&bytes) {
                prop_assert_eq!(encode_entries(&entries).unwrap(), bytes.clone());
            }
            if let Ok(hashes) = decode_hashes(&bytes) {
                prop_assert_eq!(encode_hashes(&hashes).unwrap(), bytes);
            }
        }
    }
}
