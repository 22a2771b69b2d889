//! What a log says again and again: lines grouped into templates as they come, how often each one comes, and which
//! templates are new among the lines that tell of an error.
//!
//! A [`TemplateMiner`] follows one log. Each line is cut into tokens, with a mask where something varies by its nature
//! (`mask`), and led to the template that it is most like (`tree`), which then gives up the words that this line does
//! not have. All state is bounded: when there are too many templates the one that was not seen for longest leaves.
//!
//! **The name of a template** is a hash of the line that it was made of, as masked, and is kept when the template
//! becomes more general. The same lines in the same order give the same names, lines that differ in numbers only give
//! the same name in any order, and [`TemplateMiner::state`] carries the names over a restart. What a name cannot
//! survive is that the template leaves and comes back made of another line.
//!
//! **Invariant:** no two templates have the same name: the line that a template was made of belongs to it, or to one
//! that is more like it, for as long as the template is there.

mod mask;
mod one;
mod scan;
mod tree;

use std::collections::VecDeque;

use evenkeel_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::limits::{TEMPLATES_LEFT_MAX, TEMPLATES_MAX};
use mask::Masked;
pub use one::{Template, TemplateId, shown};
use tree::{LeafKey, Tree};

/// The version of [`MinerState`] that is written.
const VERSION: u32 = 1;

/// Groups the lines of one log.
#[derive(Clone, Debug)]
pub struct TemplateMiner {
    templates: Vec<Template>,
    templates_max: usize,
    tree: Tree,
    /// Templates with errors that left, oldest first.
    left: VecDeque<TemplateId>,
    lines: u64,
    window_since: Option<Timestamp>,
    /// Lines and errors of templates that left since the window began.
    window_left: (u64, u64),
    masked: Masked,
}

/// What became of one line.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The template that it belongs to.
    pub id: TemplateId,
    /// The template was made of this line.
    pub is_new: bool,
    /// This is the first line of its template that tells of an error.
    pub new_error: Option<NewError>,
}

/// A template that was never seen among error lines before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NewError {
    /// Its name.
    pub id: TemplateId,
    /// What its lines have in common, so far.
    pub template: String,
    /// The line, shortened, without control characters. Whoever wrote it may be anybody: text to show, nothing more.
    pub line: String,
    /// When it came.
    pub at: Timestamp,
    /// How many lines the miner had seen before: with few, everything is new.
    pub lines_before: u64,
}

/// How often one template came in a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TemplateRate {
    /// The template.
    pub id: TemplateId,
    /// Its lines in the window.
    pub lines: u64,
    /// Those of them that told of an error.
    pub errors: u64,
    /// Lines a second.
    pub per_second: f64,
}

/// What came between two moments.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Window {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
    /// Every template that there is, also those that did not come: their rate is 0. In no particular order, but the
    /// same for the same lines.
    pub rates: Vec<TemplateRate>,
    /// Lines of templates that left within the window: they are in no rate.
    pub lines_left: u64,
    /// Those of them that told of an error.
    pub errors_left: u64,
}

/// What a miner knows, to be saved and read again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinerState {
    version: u32,
    templates: Vec<Template>,
    full_lengths: Vec<usize>,
    crowded: Vec<LeafKey>,
    left: VecDeque<TemplateId>,
    lines: u64,
}

/// A saved state that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMinerState {
    /// Written by another version.
    #[error("the saved log templates have version {found}, this program reads version {VERSION}")]
    Version {
        /// The version that it says.
        found: u32,
    },
    /// It contradicts itself.
    #[error("the saved log templates are damaged: {what}")]
    Damaged {
        /// How.
        what: &'static str,
    },
}

impl TemplateMiner {
    /// One with room for this many templates, at least 1 and at most [`TEMPLATES_MAX`].
    pub fn new(templates_max: usize) -> Self {
        Self {
            templates: Vec::new(),
            templates_max: templates_max.clamp(1, TEMPLATES_MAX),
            tree: Tree::default(),
            left: VecDeque::new(),
            lines: 0,
            window_since: None,
            window_left: (0, 0),
            masked: Masked::default(),
        }
    }

    /// Counts one line, that came at `at`. `is_error` is whether it tells of something that went wrong.
    pub fn observe(&mut self, at: Timestamp, line: &str, is_error: bool) -> Observed {
        let mut masked = std::mem::take(&mut self.masked);
        masked.read(line);
        let key = self.tree.key(&masked);
        let found = self.tree.find(key, &masked, &self.templates);
        let index = match found {
            Some(index) => {
                self.templates[index].widen(&masked);
                index
            }
            None => self.insert(key, &masked, at),
        };
        self.masked = masked;
        let lines_before = self.lines;
        self.lines = self.lines.saturating_add(1);
        let template = &mut self.templates[index];
        template.used = self.lines;
        template.last = at;
        template.lines = template.lines.saturating_add(1);
        template.window_lines = template.window_lines.saturating_add(1);
        let mut new_error = None;
        if is_error {
            template.errors = template.errors.saturating_add(1);
            template.window_errors = template.window_errors.saturating_add(1);
            if template.errors == 1 && !self.left.contains(&template.id) {
                new_error = Some(NewError {
                    id: template.id,
                    template: template.text(),
                    line: shown(line),
                    at,
                    lines_before,
                });
            }
        }
        Observed {
            id: template.id,
            is_new: found.is_none(),
            new_error,
        }
    }

    fn insert(&mut self, key: LeafKey, line: &Masked, at: Timestamp) -> usize {
        let template = Template::new(self.name(line), key, line, at, self.lines);
        let index = if self.templates.len() < self.templates_max {
            self.templates.push(template);
            self.templates.len() - 1
        } else {
            let index = self.least_recent();
            let old = std::mem::replace(&mut self.templates[index], template);
            self.leave(&old, index);
            index
        };
        self.tree.put(key, index);
        index
    }

    fn name(&self, line: &Masked) -> TemplateId {
        let mut hash = line.hash();
        // Two lines with the same hash are as good as impossible, but a name that is taken is never given again.
        while self.templates.iter().any(|t| t.id.0 == hash) {
            hash = hash.wrapping_add(1);
        }
        TemplateId(hash)
    }

    fn least_recent(&self) -> usize {
        let oldest = self
            .templates
            .iter()
            .enumerate()
            .min_by_key(|(_, t)| t.used);
        oldest.map_or(0, |(index, _)| index)
    }

    fn leave(&mut self, old: &Template, index: usize) {
        self.tree.take(old.leaf, index);
        self.window_left.0 = self.window_left.0.saturating_add(old.window_lines);
        self.window_left.1 = self.window_left.1.saturating_add(old.window_errors);
        if old.errors > 0 && !self.left.contains(&old.id) {
            self.left.push_back(old.id);
            if self.left.len() > TEMPLATES_LEFT_MAX {
                self.left.pop_front();
            }
        }
    }

    /// Ends the window at `at` and begins the next one. `None` for the first, whose beginning nobody said, and when
    /// the clock did not go forward: no rate can be told then.
    pub fn close_window(&mut self, at: Timestamp) -> Option<Window> {
        let from = self.window_since.replace(at);
        let from = from.filter(|from| at > *from);
        let window = from.map(|from| {
            let seconds = at.millis_since(from) as f64 / 1000.0;
            let rate = |t: &Template| TemplateRate {
                id: t.id,
                lines: t.window_lines,
                errors: t.window_errors,
                per_second: t.window_lines as f64 / seconds,
            };
            Window {
                from,
                to: at,
                rates: self.templates.iter().map(rate).collect(),
                lines_left: self.window_left.0,
                errors_left: self.window_left.1,
            }
        });
        self.window_left = (0, 0);
        for template in &mut self.templates {
            (template.window_lines, template.window_errors) = (0, 0);
        }
        window
    }

    /// Begins a window at `at` without telling of the last one: the log could not be read all the time.
    pub fn skip_window(&mut self, at: Timestamp) {
        self.window_since = None;
        self.close_window(at);
    }

    /// The templates that there are.
    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// The one of this name, if it is still there.
    pub fn template(&self, id: TemplateId) -> Option<&Template> {
        self.templates.iter().find(|t| t.id == id)
    }

    /// Lines observed so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// What it knows, to be saved.
    pub fn state(&self) -> MinerState {
        let (full_lengths, crowded) = self.tree.marks();
        MinerState {
            version: VERSION,
            templates: self.templates.clone(),
            full_lengths,
            crowded,
            left: self.left.clone(),
            lines: self.lines,
        }
    }

    /// Goes on from a saved state. The window that was open then is not told of. When there is room for fewer
    /// templates than were saved, those that were not seen for longest are left out.
    pub fn restore(state: MinerState, templates_max: usize) -> Result<Self, InvalidMinerState> {
        if state.version != VERSION {
            return Err(InvalidMinerState::Version {
                found: state.version,
            });
        }
        let damaged = |what| Err(InvalidMinerState::Damaged { what });
        if state.templates.len() > TEMPLATES_MAX || state.left.len() > TEMPLATES_LEFT_MAX {
            return damaged("there are too many templates");
        }
        let mut names: Vec<TemplateId> = state.templates.iter().map(|t| t.id).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() != state.templates.len() {
            return damaged("two templates have the same name");
        }
        if let Some(what) = state.templates.iter().find_map(Template::defect) {
            return damaged(what);
        }
        let mut miner = Self::new(templates_max);
        miner.lines = state.lines;
        miner.left = state.left;
        miner.templates = state.templates;
        if miner.templates.len() > miner.templates_max {
            miner.templates.sort_by_key(|t| std::cmp::Reverse(t.used));
            miner.templates.truncate(miner.templates_max);
        }
        // In the order of their birth, as the leaves had them.
        let mut order: Vec<usize> = (0..miner.templates.len()).collect();
        order.sort_by_key(|i| miner.templates[*i].born);
        for index in order {
            let template = &mut miner.templates[index];
            (template.window_lines, template.window_errors) = (0, 0);
            miner.tree.put(template.leaf, index);
        }
        miner.tree.mark(&state.full_lengths, &state.crowded);
        Ok(miner)
    }
}

#[cfg(test)]
mod tests;
