//! The built-in local model: small, deterministic, without network. It answers a question from
//! what it knows about Grace, and summarises a longer text by picking its central sentences
//! (sentences that share words with many others, ranked as in `LexRank`, Erkan and Radev 2004).

use std::collections::BTreeSet;

/// What it knows, a fact a sentence.
pub(crate) const KNOWLEDGE: &str = "\
Grace is a small assistant backend with a chat, policy decisions and an event mesh. \
The health endpoint answers as long as the process runs. \
The ready endpoint answers when the database can be reached through the pool. \
The metrics endpoint reports request counts, latency histograms, the pool and the memory. \
The chat stores every message in the database before it is answered. \
The chat asks the model server when one is configured, and answers locally when that is slow. \
A governance decision is made by the first policy that matches the subject, action and resource. \
A request that no policy matches is denied by default. \
Every governance decision is written into the history and reported to the audit receiver. \
The governance report counts which requests of the history each policy matches. \
A session keeps the context of a conversation in memory. \
A request without a session header opens a new session. \
The least recently used session makes room when the session cache is full. \
The database pool has a bounded number of connections, and every query needs one of its own. \
A query that finds no free connection in time fails with a pool timeout. \
A write that finds the database locked by another program fails when the busy timeout is over. \
The public read endpoints are limited in requests per second and in burst. \
A request above the rate limit is told when to try again. \
The worker gate bounds how many public read requests are worked on at the same time. \
The event mesh streams published events to every consumer that wants their type. \
A consumer of the event mesh that does not keep up is dropped and may connect again. \
The metrics collector is a process of its own that writes summaries into the database. \
The metrics summary reports the newest row of the metrics collector and the decisions by hour. \
Audited actions wait in a bounded queue, and a slow audit receiver never slows a request. \
The settings are read when the process starts, so a change needs a restart. \
The log has one line for every request that failed, with the error code and the request id. \
A termination signal ends the process in good order within three seconds. \
An image or a recording is sent to the chat as its caption or transcript.";

/// Sentences in the summary of a longer text.
const SUMMARY_SENTENCES: usize = 2;
/// Sentences ranked at most; a longer text is cut.
const SENTENCES_MAX: usize = 120;
/// Rounds of the ranking: enough to settle for texts of this size.
const RANK_ROUNDS: usize = 30;

/// Answers a message.
pub(crate) fn answer(message: &str, modality: &str) -> String {
    let what = match modality {
        "image" => "The image's caption",
        "audio" => "The transcript",
        _ => "Your message",
    };
    let sentences = sentences(message);
    if sentences.len() > SUMMARY_SENTENCES {
        return format!("{what} in short: {}", summarise(message, SUMMARY_SENTENCES));
    }
    let asked = words(message);
    let best = crate::model::sentences(KNOWLEDGE)
        .into_iter()
        .map(|fact| (words(fact).intersection(&asked).count(), fact))
        .max_by_key(|(shared, fact)| (*shared, std::cmp::Reverse(fact.len())));
    match best {
        Some((shared, fact)) if shared > 0 => fact.to_owned(),
        _ => format!("{what} is kept. I know nothing more about it; ask about Grace itself."),
    }
}

/// The `count` most central sentences of a text, in their order.
pub(crate) fn summarise(text: &str, count: usize) -> String {
    let sentences = sentences(text);
    let ranks = rank(&sentences);
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    order.sort_by(|a, b| ranks[*b].total_cmp(&ranks[*a]).then(a.cmp(b)));
    order.truncate(count);
    order.sort_unstable();
    let picked: Vec<&str> = order.into_iter().map(|i| sentences[i]).collect();
    picked.join(" ")
}

/// The ranks of the sentences: the stationary weights of a walk between similar ones.
fn rank(sentences: &[&str]) -> Vec<f64> {
    let n = sentences.len();
    let bags: Vec<BTreeSet<String>> = sentences.iter().map(|s| words(s)).collect();
    let mut similar = vec![vec![0.0; n]; n];
    for a in 0..n {
        for b in 0..n {
            if a != b {
                let shared = bags[a].intersection(&bags[b]).count() as f64;
                let size = ((bags[a].len() + 1) as f64).ln() + ((bags[b].len() + 1) as f64).ln();
                similar[a][b] = shared / size;
            }
        }
    }
    let sums: Vec<f64> = similar.iter().map(|row| row.iter().sum::<f64>()).collect();
    let mut ranks = vec![1.0 / n.max(1) as f64; n];
    for _ in 0..RANK_ROUNDS {
        ranks = (0..n)
            .map(|to| {
                let inflow: f64 = (0..n)
                    .filter(|from| sums[*from] > 0.0)
                    .map(|from| ranks[from] * similar[from][to] / sums[from])
                    .sum();
                0.15 / n as f64 + 0.85 * inflow
            })
            .collect();
    }
    ranks
}

/// The sentences of a text, at most [`SENTENCES_MAX`].
fn sentences(text: &str) -> Vec<&str> {
    text.split_inclusive(['.', '!', '?', '\n'])
        .map(str::trim)
        .filter(|sentence| sentence.chars().any(char::is_alphanumeric))
        .take(SENTENCES_MAX)
        .collect()
}

/// The words of a text that carry meaning, in lower case and without a plural s.
fn words(text: &str) -> BTreeSet<String> {
    const COMMON: [&str; 28] = [
        "the", "and", "that", "with", "for", "are", "was", "what", "how", "does", "when", "which",
        "who", "why", "you", "your", "its", "this", "from", "into", "not", "has", "have", "can",
        "will", "there", "about", "please",
    ];
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() > 2)
        .map(str::to_lowercase)
        .filter(|word| !COMMON.contains(&word.as_str()))
        .map(|word| match word.strip_suffix('s') {
            Some(stem) if stem.len() > 2 => stem.to_owned(),
            _ => word,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_from_what_is_known() {
        let text = answer("What does the event mesh stream to consumers?", "text");
        assert!(text.contains("event mesh streams"), "{text}");
        let text = answer("xyzzy", "image");
        assert!(text.starts_with("The image's caption is kept"), "{text}");
    }

    #[test]
    fn a_long_text_is_summarised_by_its_central_sentences() {
        let text = "The boat left the harbour at dawn. My aunt likes tea. The boat met a storm \
                    outside the harbour. After the storm the boat came back to the harbour.";
        let summary = answer(text, "text");
        assert!(
            summary.contains("boat") && !summary.contains("aunt"),
            "{summary}"
        );
        assert_eq!(summary, answer(text, "text"), "the same every time");
    }

    #[test]
    fn nothing_and_too_much_are_fine() {
        assert_eq!(summarise("", 2), "");
        assert!(!answer("", "text").is_empty());
        assert!(sentences(&"a b. ".repeat(1000)).len() <= SENTENCES_MAX);
    }
}
