//! LIKE: `_` stands for one character, `%` for any number of them.

/// Longest pattern, characters: what a comparison costs is its product with the text's length.
pub(crate) const PATTERN_CHARS_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Like(Vec<Piece>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Char(char),
    AnyChar,
    AnyText,
}

impl Like {
    pub(crate) fn parse(pattern: &str, escape: Option<char>) -> Result<Self, String> {
        if pattern.chars().count() > PATTERN_CHARS_MAX {
            return Err(format!("a pattern may have {PATTERN_CHARS_MAX} characters"));
        }
        let mut pieces = Vec::new();
        let mut chars = pattern.chars();
        while let Some(char) = chars.next() {
            pieces.push(match char {
                char if Some(char) == escape => match chars.next() {
                    Some(escaped) => Piece::Char(escaped),
                    None => return Err("the pattern ends with its escape character".to_owned()),
                },
                '_' => Piece::AnyChar,
                '%' => Piece::AnyText,
                char => Piece::Char(char),
            });
        }
        Ok(Self(pieces))
    }

    /// Only the last `%` is ever tried again: what those before it took can stay.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let pieces = &self.0;
        let (mut at, mut rest) = (0, text);
        let mut again: Option<(usize, &str)> = None;
        loop {
            let mut chars = rest.chars();
            match (pieces.get(at), chars.next()) {
                (Some(Piece::AnyText), _) => {
                    at += 1;
                    again = Some((at, rest));
                    continue;
                }
                (Some(Piece::AnyChar), Some(_)) => {
                    (at, rest) = (at + 1, chars.as_str());
                    continue;
                }
                (Some(Piece::Char(wanted)), Some(given)) if *wanted == given => {
                    (at, rest) = (at + 1, chars.as_str());
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            let Some((after, from)) = again else { return false };
            let mut chars = from.chars();
            if chars.next().is_none() {
                return false;
            }
            again = Some((after, chars.as_str()));
            (at, rest) = (after, chars.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_escapes() {
        for (pattern, escape, text, wanted) in [
            ("12%3", None, "123", true),
            ("12%3", None, "12993", true),
            ("12%3", None, "1234", false),
            ("l_se", None, "lose", true),
            ("l_se", None, "loose", false),
            (r"\_%", Some('\\'), "_foo", true),
            (r"\_%", Some('\\'), "bar", false),
            ("", None, "", true),
            ("%", None, "", true),
            ("_", None, "", false),
            ("%a%b%", None, "xxaxxbxx", true),
            ("%ab%ab", None, "abxab", true),
            ("%ab%ab", None, "ab", false),
            ("%aab", None, "aaab", true),
            ("_%_", None, "é", false),
            ("_%_", None, "éé", true),
            ("a.c", None, "abc", false),
            ("x%%", Some('x'), "%y", true),
        ] {
            let like = Like::parse(pattern, escape).unwrap();
            assert_eq!(like.matches(text), wanted, "{pattern} {text}");
        }
        assert!(Like::parse("a!", Some('!')).is_err());
        assert!(Like::parse(&"%".repeat(PATTERN_CHARS_MAX + 1), None).is_err());
    }
}
