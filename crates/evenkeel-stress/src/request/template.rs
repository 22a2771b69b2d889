//! Text with `${column}` in it, filled from a row of data.

use crate::data::Rows;
use crate::target::PlanError;
use crate::text::bounded;

/// How a value is written where it is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// As it is.
    Nothing,
    /// Percent-encoded but for unreserved characters (RFC 3986, section 2.3): it stays within its part of a path or
    /// query.
    Url,
    /// As within a string of JSON.
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Column(usize),
}

/// A text and the columns that stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
    escape: Escape,
}

impl Template {
    /// Takes a text apart; without rows of data, `${` is text like any other.
    pub(super) fn parse(
        what: &'static str,
        text: &str,
        data: Option<&Rows>,
        escape: Escape,
    ) -> Result<Self, PlanError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(rows) = data
            && let Some(start) = rest.find("${")
        {
            let Some(length) = rest[start..].find('}') else {
                break;
            };
            let name = rest[start + 2..start + length].trim();
            let Some(column) = rows.column(name) else {
                return Err(PlanError::BadRequest {
                    what,
                    value: format!("${{{}}}", bounded(name, 40)),
                    reason: format!(
                        "is no column of the data; there is: {}",
                        bounded(&rows.columns().join(", "), 200)
                    ),
                });
            };
            if start > 0 {
                pieces.push(Piece::Text(rest[..start].to_owned()));
            }
            pieces.push(Piece::Column(column));
            rest = &rest[start + length + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces, escape })
    }

    /// Whether it is the same for every row.
    pub(super) fn is_fixed(&self) -> bool {
        self.pieces.iter().all(|p| matches!(p, Piece::Text(_)))
    }

    /// Writes it with the values of a row.
    pub(super) fn write(&self, row: &[String], out: &mut Vec<u8>) {
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Column(i) => {
                    let value = row.get(*i).map_or("", String::as_str);
                    match self.escape {
                        Escape::Nothing => out.extend_from_slice(value.as_bytes()),
                        Escape::Url => percent_encode(value, out),
                        Escape::Json => json_escape(value, out),
                    }
                }
            }
        }
    }

    pub(super) fn filled(&self, row: &[String]) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(row, &mut out);
        out
    }
}

fn percent_encode(value: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend([
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
}

fn json_escape(value: &str, out: &mut Vec<u8>) {
    let quoted = serde_json::Value::from(value).to_string();
    out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str, escape: Escape) -> String {
        let rows = Rows::from_csv("id,name\n1,\"a \"\"b\"\"/ü\"\n").unwrap();
        let template = Template::parse("path", text, Some(&rows), escape).unwrap();
        String::from_utf8(template.filled(rows.row(0))).unwrap()
    }

    #[test]
    fn values_are_written_as_their_place_asks() {
        assert_eq!(
            fill("/x/${id}?n=${ name }", Escape::Url),
            "/x/1?n=a%20%22b%22%2F%C3%BC"
        );
        assert_eq!(
            fill("{\"n\":\"${name}\"}", Escape::Json),
            "{\"n\":\"a \\\"b\\\"/ü\"}"
        );
        assert_eq!(fill("${id}${name}", Escape::Nothing), "1a \"b\"/ü");
        assert_eq!(fill("no ${ end", Escape::Nothing), "no ${ end");
    }

    #[test]
    fn a_column_that_is_not_there_is_named_with_those_that_are() {
        let rows = Rows::from_csv("id\n1\n").unwrap();
        let error = Template::parse("path", "/${ids}", Some(&rows), Escape::Url).unwrap_err();
        assert!(error.to_string().contains("there is: id"), "{error}");
        let text = Template::parse("path", "${ids}", None, Escape::Url).unwrap();
        assert!(text.is_fixed());
    }
}
