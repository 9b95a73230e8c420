//! Regular expressions on names, of permissions and policies. They are not anchored, and what
//! they cost is bounded: the engine has no backtracking, and a compiled one has a size limit.

use regex::{Regex, RegexBuilder};

pub(crate) const PATTERN_BYTES_MAX: usize = 4_096;
const COMPILED_BYTES_MAX: usize = 1 << 20;

#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    All,
    Nothing,
    Regex(Regex),
}

/// # Errors
/// Why the text is no regular expression on names.
pub fn check_pattern(text: &str) -> Result<(), String> {
    Pattern::parse(text).map(|_| ())
}

impl Pattern {
    /// # Errors
    /// Why the text is no pattern, for the one who typed it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
        }
        // By far the most common ones need no engine.
        if text == ".*" {
            return Ok(Self::All);
        }
        let regex = RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).build();
        regex.map(Self::Regex).map_err(|error| error.to_string())
    }

    /// In a permission the empty pattern permits nothing.
    pub(crate) fn of_permission(text: &str) -> Self {
        if text.is_empty() { Self::Nothing } else { Self::parse(text).unwrap_or(Self::Nothing) }
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_unanchored_and_empty_permits_nothing() {
        for (pattern, name, expected) in [
            ("", "", false),
            ("", "orders", false),
            (".*", "", true),
            ("ord", "my-orders", true),
            ("^ord", "my-orders", false),
            ("^(a|b)$", "b", true),
            ("^amq\\.gen", "amq.gen-1", true),
            ("(", "(", false),
        ] {
            assert_eq!(Pattern::of_permission(pattern).matches(name), expected, "{pattern} {name}");
        }
        assert!(Pattern::parse("(?=a)b").is_err());
        assert!(Pattern::parse("((a{1000}){1000}){1000}").is_err());
        assert!(Pattern::parse(&"a".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }
}
