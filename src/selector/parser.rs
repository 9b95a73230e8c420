//! From text to [`Expression`]. Checks what can be known without a message: a selector that could
//! never be evaluated is refused when it is given, not when it is used.

use crate::error::SelectorError;
use crate::expression::{Comparison, Expression, Operation};
use crate::lexer::{Keyword, Lexer, Token};
use crate::like::Like;
use std::collections::BTreeSet;

/// Parentheses, signs, NOTs and chained calculations inside each other; evaluation is as deep.
const DEPTH_MAX: usize = 64;

type Result<T = Expression> = std::result::Result<T, SelectorError>;

pub(crate) fn parse(text: &str, hyphens: bool) -> Result {
    let mut parser =
        Parser { lexer: Lexer::new(text, hyphens), token: Token::End, at: 0, depth: 0 };
    parser.advance()?;
    let condition = parser.or()?;
    if parser.token != Token::End {
        return Err(parser.expected("AND, OR or the end"));
    }
    parser.condition(0, condition)
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token,
    /// Where the token begins.
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn advance(&mut self) -> Result<Token> {
        let (at, next) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn take(&mut self, wanted: &Token) -> Result<bool> {
        let found = self.token == *wanted;
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn take_keyword(&mut self, keyword: Keyword) -> Result<bool> {
        self.take(&Token::Keyword(keyword))
    }

    fn require(&mut self, wanted: &Token, name: &str) -> Result<()> {
        if self.take(wanted)? { Ok(()) } else { Err(self.expected(name)) }
    }

    fn expected(&self, what: &str) -> SelectorError {
        self.lexer.error(self.at, format!("{what} is expected here"))
    }

    fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.lexer.error(self.at, format!("it is nested deeper than {DEPTH_MAX}")));
        }
        Ok(())
    }

    fn condition(&self, at: usize, expression: Expression) -> Result {
        if expression.is_condition() {
            return Ok(expression);
        }
        Err(self.lexer.error(at, "a condition is expected here, and not a value"))
    }

    fn number(&self, at: usize, expression: Expression) -> Result {
        if expression.is_number() {
            return Ok(expression);
        }
        Err(self.lexer.error(at, "a number is expected here"))
    }

    fn or(&mut self) -> Result {
        self.chain(Keyword::Or, Self::and, Expression::Or)
    }

    fn and(&mut self) -> Result {
        self.chain(Keyword::And, Self::not, Expression::And)
    }

    fn chain(
        &mut self,
        keyword: Keyword,
        part: fn(&mut Self) -> Result,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Result {
        let at = self.at;
        let first = part(self)?;
        if self.token != Token::Keyword(keyword) {
            return Ok(first);
        }
        let mut parts = vec![self.condition(at, first)?];
        while self.take_keyword(keyword)? {
            let at = self.at;
            let next = part(self)?;
            parts.push(self.condition(at, next)?);
        }
        Ok(join(parts))
    }

    fn not(&mut self) -> Result {
        if !self.take_keyword(Keyword::Not)? {
            return self.predicate();
        }
        self.deeper()?;
        let at = self.at;
        let inside = self.not()?;
        self.depth -= 1;
        Ok(Expression::Not(Box::new(self.condition(at, inside)?)))
    }

    fn predicate(&mut self) -> Result {
        let at = self.at;
        let left = self.sum()?;
        if let Some(comparison) = self.comparison()? {
            let right_at = self.at;
            let right = self.sum()?;
            return self.compare(comparison, (at, left), (right_at, right));
        }
        if self.take_keyword(Keyword::Is)? {
            let negated = self.take_keyword(Keyword::Not)?;
            self.require(&Token::Keyword(Keyword::Null), "NULL")?;
            return Ok(Expression::IsNull { name: self.name(at, left)?, negated });
        }
        let negated = self.take_keyword(Keyword::Not)?;
        if self.take_keyword(Keyword::Between)? {
            return self.between((at, left), negated);
        }
        if self.take_keyword(Keyword::In)? {
            let texts = self.texts()?;
            return Ok(Expression::In { name: self.name(at, left)?, texts, negated });
        }
        if self.take_keyword(Keyword::Like)? {
            let like = self.like()?;
            return Ok(Expression::Like { name: self.name(at, left)?, like, negated });
        }
        if negated { Err(self.expected("BETWEEN, IN or LIKE")) } else { Ok(left) }
    }

    fn comparison(&mut self) -> Result<Option<Comparison>> {
        let comparison = match self.token {
            Token::Sign("=") => Comparison::Equal,
            Token::Sign("<>") => Comparison::NotEqual,
            Token::Sign("<") => Comparison::Less,
            Token::Sign("<=") => Comparison::LessOrEqual,
            Token::Sign(">") => Comparison::Greater,
            Token::Sign(">=") => Comparison::GreaterOrEqual,
            _ => return Ok(None),
        };
        self.advance()?;
        Ok(Some(comparison))
    }

    fn compare(
        &self,
        comparison: Comparison,
        left: (usize, Expression),
        right: (usize, Expression),
    ) -> Result {
        for (at, side) in [&left, &right] {
            if !side.is_value() {
                return Err(self.lexer.error(*at, "a condition cannot be compared"));
            }
            if comparison.is_ordering() && !side.is_number() {
                return Err(self.lexer.error(*at, "only numbers have an order"));
            }
        }
        Ok(Expression::Compare(comparison, Box::new(left.1), Box::new(right.1)))
    }

    /// The same as two comparisons (JMS 2.0 section 3.8.1.1).
    fn between(&mut self, (at, value): (usize, Expression), negated: bool) -> Result {
        let value = self.number(at, value)?;
        let at = self.at;
        let low = self.sum()?;
        let low = self.number(at, low)?;
        self.require(&Token::Keyword(Keyword::And), "AND")?;
        let at = self.at;
        let high = self.sum()?;
        let high = self.number(at, high)?;
        let compare = |comparison, limit| {
            Expression::Compare(comparison, Box::new(value.clone()), Box::new(limit))
        };
        Ok(if negated {
            let parts = [compare(Comparison::Less, low), compare(Comparison::Greater, high)];
            Expression::Or(parts.into())
        } else {
            let low = compare(Comparison::GreaterOrEqual, low);
            Expression::And(vec![low, compare(Comparison::LessOrEqual, high)])
        })
    }

    fn name(&self, at: usize, expression: Expression) -> Result<String> {
        match expression {
            Expression::Name(name) => Ok(name),
            _ => Err(self.lexer.error(at, "a property's name is expected here")),
        }
    }

    fn text(&mut self) -> Result<String> {
        match self.token {
            Token::Text(_) => match self.advance()? {
                Token::Text(text) => Ok(text),
                _ => Err(self.expected("a text")),
            },
            _ => Err(self.expected("a text in quotes")),
        }
    }

    fn texts(&mut self) -> Result<BTreeSet<String>> {
        self.require(&Token::Sign("("), "'('")?;
        let mut texts = BTreeSet::from([self.text()?]);
        while self.take(&Token::Sign(","))? {
            texts.insert(self.text()?);
        }
        self.require(&Token::Sign(")"), "',' or ')'")?;
        Ok(texts)
    }

    fn like(&mut self) -> Result<Like> {
        let at = self.at;
        let pattern = self.text()?;
        let mut escape = None;
        if self.take_keyword(Keyword::Escape)? {
            let at = self.at;
            let text = self.text()?;
            let mut chars = text.chars();
            escape = chars.next();
            if escape.is_none() || chars.next().is_some() {
                return Err(self.lexer.error(at, "one character is expected here"));
            }
        }
        Like::parse(&pattern, escape).map_err(|why| self.lexer.error(at, why))
    }

    fn sum(&mut self) -> Result {
        let signs = [("+", Operation::Add), ("-", Operation::Subtract)];
        self.calculation(signs, Self::product)
    }

    fn product(&mut self) -> Result {
        let signs = [("*", Operation::Multiply), ("/", Operation::Divide)];
        self.calculation(signs, Self::signed)
    }

    /// From the left to the right; each step is one deeper.
    fn calculation(
        &mut self,
        signs: [(&'static str, Operation); 2],
        part: fn(&mut Self) -> Result,
    ) -> Result {
        let at = self.at;
        let before = self.depth;
        let mut left = part(self)?;
        while let Some((_, operation)) = signs.iter().find(|(s, _)| self.token == Token::Sign(s)) {
            self.advance()?;
            self.deeper()?;
            let left_side = self.number(at, left)?;
            let at = self.at;
            let right = part(self)?;
            let right = self.number(at, right)?;
            left = Expression::Arithmetic(*operation, Box::new(left_side), Box::new(right));
        }
        self.depth = before;
        Ok(left)
    }

    fn signed(&mut self) -> Result {
        let negative = self.token == Token::Sign("-");
        if !negative && self.token != Token::Sign("+") {
            return self.primary();
        }
        self.advance()?;
        if negative && self.take(&Token::ExactMinNegated)? {
            return Ok(Expression::Exact(i64::MIN));
        }
        self.deeper()?;
        let at = self.at;
        let inside = self.signed()?;
        self.depth -= 1;
        let inside = self.number(at, inside)?;
        Ok(if negative { Expression::Negate(Box::new(inside)) } else { inside })
    }

    fn primary(&mut self) -> Result {
        let at = self.at;
        Ok(match self.advance()? {
            Token::Name(name) => Expression::Name(name),
            Token::Text(text) => Expression::Text(text),
            Token::Exact(number) => Expression::Exact(number),
            Token::Approximate(number) => Expression::Approximate(number),
            Token::Keyword(Keyword::True) => Expression::Bool(true),
            Token::Keyword(Keyword::False) => Expression::Bool(false),
            Token::Sign("(") => {
                self.deeper()?;
                let inside = self.or()?;
                self.depth -= 1;
                self.require(&Token::Sign(")"), "')'")?;
                inside
            }
            Token::ExactMinNegated => {
                return Err(self.lexer.error(at, "this is no integer of 64 bits"));
            }
            _ => return Err(self.lexer.error(at, "a name, a value or '(' is expected here")),
        })
    }
}
