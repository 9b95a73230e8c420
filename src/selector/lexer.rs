//! Words, numbers, texts and signs of a selector.

use crate::error::SelectorError;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Name(String),
    Keyword(Keyword),
    Text(String),
    Exact(i64),
    /// 9223372036854775808, which is a number with a minus sign in front only.
    ExactMinNegated,
    Approximate(f64),
    Sign(&'static str),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    And,
    Between,
    Escape,
    False,
    In,
    Is,
    Like,
    Not,
    Null,
    Or,
    True,
}

/// No name may be one of these, in whatever case (JMS 2.0 section 3.8.1.1).
const KEYWORDS: [(&str, Keyword); 11] = [
    ("AND", Keyword::And),
    ("BETWEEN", Keyword::Between),
    ("ESCAPE", Keyword::Escape),
    ("FALSE", Keyword::False),
    ("IN", Keyword::In),
    ("IS", Keyword::Is),
    ("LIKE", Keyword::Like),
    ("NOT", Keyword::Not),
    ("NULL", Keyword::Null),
    ("OR", Keyword::Or),
    ("TRUE", Keyword::True),
];

/// The longer ones first.
const SIGNS: [&str; 13] = ["<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "(", ")", ","];

pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    hyphens: bool,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str, hyphens: bool) -> Self {
        Self { text, at: 0, hyphens }
    }

    pub(crate) fn error(&self, byte: usize, why: impl Into<String>) -> SelectorError {
        SelectorError::new(self.text, byte, why)
    }

    /// The next token and where it begins.
    pub(crate) fn next(&mut self) -> Result<(usize, Token), SelectorError> {
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c');
        let rest = self.text[self.at..].trim_start_matches(is_space);
        self.at = self.text.len() - rest.len();
        let at = self.at;
        let token = match rest.chars().next() {
            None => Token::End,
            Some('\'') => self.quoted(rest)?,
            Some(c) if c.is_ascii_digit() => self.number(rest)?,
            Some('.') if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.number(rest)?
            }
            Some(c) if is_name_start(c) => self.word(rest),
            Some(c) => {
                let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
                let sign =
                    sign.ok_or_else(|| self.error(at, format!("'{c}' has no meaning here")))?;
                self.at += sign.len();
                Token::Sign(sign)
            }
        };
        Ok((at, token))
    }

    fn word(&mut self, rest: &str) -> Token {
        let in_name =
            |c: char| c.is_alphanumeric() || matches!(c, '_' | '$') || (self.hyphens && c == '-');
        let length = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
        let word = &rest[..length];
        self.at += length;
        let keyword = KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        keyword
            .map_or_else(|| Token::Name(word.to_owned()), |(_, keyword)| Token::Keyword(*keyword))
    }

    /// A quote inside is written twice.
    fn quoted(&mut self, rest: &str) -> Result<Token, SelectorError> {
        let mut text = String::new();
        let mut inside = &rest[1..];
        loop {
            let Some((part, after)) = inside.split_once('\'') else {
                return Err(self.error(self.at, "the text has no closing quote"));
            };
            text.push_str(part);
            let Some(doubled) = after.strip_prefix('\'') else {
                self.at = self.text.len() - after.len();
                return Ok(Token::Text(text));
            };
            text.push('\'');
            inside = doubled;
        }
    }

    /// As Java writes them: decimal, hexadecimal and octal integers, perhaps with an `L`; numbers
    /// with a point or exponent, perhaps with `F` or `D`.
    fn number(&mut self, rest: &str) -> Result<Token, SelectorError> {
        let at = self.at;
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let length = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
            self.at += 2 + length;
            return self.integer(at, &hex[..length], 16);
        }
        let mut length = digits(rest);
        let whole = length;
        if rest[length..].starts_with('.') {
            length += 1 + digits(&rest[length + 1..]);
        }
        if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
            let signed = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits(signed) > 0 {
                length += 1 + (exponent.len() - signed.len()) + digits(signed);
            }
        }
        let suffixed = rest[length..].starts_with(['f', 'F', 'd', 'D']);
        self.at += length;
        if length > whole || suffixed {
            self.at += usize::from(suffixed);
            self.end_of_number()?;
            // Rust reads `7.` and `.5` as Java does.
            let number = rest[..length].parse::<f64>();
            let number = number.map_err(|_| self.error(at, "this is no number"))?;
            return Ok(Token::Approximate(number));
        }
        match rest[..whole].strip_prefix('0') {
            Some(octal) if !octal.is_empty() => self.integer(at, octal, 8),
            _ => self.integer(at, &rest[..whole], 10),
        }
    }

    fn integer(&mut self, at: usize, digits: &str, radix: u32) -> Result<Token, SelectorError> {
        if self.text[self.at..].starts_with(['l', 'L']) {
            self.at += 1;
        }
        self.end_of_number()?;
        if radix == 10 && digits == "9223372036854775808" {
            return Ok(Token::ExactMinNegated);
        }
        let number = i64::from_str_radix(digits, radix);
        number.map(Token::Exact).map_err(|_| self.error(at, "this is no integer of 64 bits"))
    }

    fn end_of_number(&self) -> Result<(), SelectorError> {
        if self.text[self.at..].starts_with(|c: char| is_name_start(c) || c.is_ascii_digit()) {
            return Err(self.error(self.at, "a number ends here, and a name may not begin"));
        }
        Ok(())
    }
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '$')
}
