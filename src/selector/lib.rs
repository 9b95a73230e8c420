//! Message selectors: the SQL-92 subset of JMS 1.1 section 3.8.1 and JMS 2.0 section 3.8.1, as a
//! [`Selector`] that is parsed once and asked about many messages. Knows no protocol and no queue.

mod error;
mod evaluate;
mod expression;
mod lexer;
mod like;
mod parser;
mod properties;

pub use error::SelectorError;
pub use properties::Candidate;

use expression::Expression;

/// Longest text of a selector.
pub const SELECTOR_BYTES_MAX: usize = 4 * 1024;

/// ActiveMQ's: texts are compared with numbers and booleans as what they spell. It sets this for
/// every STOMP subscription, because STOMP's headers are all texts.
pub const CONVERT_STRINGS: &str = "convert_string_expressions:";
/// ActiveMQ's: names may hold hyphens, and a subtraction needs spaces.
const HYPHENATED_NAMES: &str = "hyphenated_props:";

/// A condition on a message's properties.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    condition: Expression,
    converts_strings: bool,
}

impl Selector {
    /// `text` may begin with ActiveMQ's prefixes, in any order.
    ///
    /// # Errors
    /// The client's: where the text is no selector, and why.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            let why = format!("it is longer than {SELECTOR_BYTES_MAX} bytes");
            return Err(SelectorError::new(text, SELECTOR_BYTES_MAX, why));
        }
        let (mut converts_strings, mut hyphens) = (false, false);
        let mut condition = text;
        loop {
            if let Some(rest) = condition.strip_prefix(CONVERT_STRINGS) {
                (converts_strings, condition) = (true, rest);
            } else if let Some(rest) = condition.strip_prefix(HYPHENATED_NAMES) {
                (hyphens, condition) = (true, rest);
            } else {
                break;
            }
        }
        let condition = parser::parse(condition, hyphens)?;
        Ok(Self { condition, converts_strings })
    }

    /// Whether the condition is true; neither false nor unknown.
    pub fn selects(&self, message: &Candidate<'_>) -> bool {
        evaluate::truth(&self.condition, message, self.converts_strings) == Some(true)
    }
}

#[cfg(test)]
mod tests;
