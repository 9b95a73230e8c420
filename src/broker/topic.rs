//! Topic patterns as a trie of words (AMQP 0-9-1 section 3.1.3.3): `*` is one word, `#` is any
//! number of words, also none; an empty word counts as a word.

use std::collections::BTreeMap;
use understudy_model::Text;

#[derive(Clone, Debug)]
pub(crate) struct TopicTrie<T> {
    root: Node<T>,
}

#[derive(Clone, Debug)]
struct Node<T> {
    words: BTreeMap<Text, Self>,
    targets: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { words: BTreeMap::new(), targets: Vec::new() }
    }
}

impl<T> Default for TopicTrie<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T: PartialEq + Clone> TopicTrie<T> {
    pub(crate) fn insert(&mut self, pattern: &str, target: T) {
        let mut node = &mut self.root;
        for word in words(pattern) {
            node = node.words.entry(Text::from(word)).or_default();
        }
        node.targets.push(target);
    }

    /// Removes one insertion of the target at this pattern.
    pub(crate) fn remove(&mut self, pattern: &str, target: &T) {
        let words: Vec<&str> = words(pattern).collect();
        remove(&mut self.root, &words, target);
    }

    /// Calls `found` for each target whose pattern matches; the same target may come repeatedly.
    pub(crate) fn matches(&self, key: &str, found: &mut impl FnMut(&T)) {
        let words: Vec<&str> = words(key).collect();
        walk(&self.root, &words, found);
    }
}

/// An empty key or pattern has no words; "a." has two, the second one empty.
fn words(key: &str) -> impl Iterator<Item = &str> {
    key.split('.').filter(move |_| !key.is_empty())
}

fn remove<T: PartialEq>(node: &mut Node<T>, words: &[&str], target: &T) {
    let Some((first, rest)) = words.split_first() else {
        if let Some(at) = node.targets.iter().position(|t| t == target) {
            node.targets.swap_remove(at);
        }
        return;
    };
    if let Some(child) = node.words.get_mut(*first) {
        remove(child, rest, target);
        if child.targets.is_empty() && child.words.is_empty() {
            node.words.remove(*first);
        }
    }
}

/// All trie nodes that the words so far can have reached. A set, not a recursion per choice: a
/// pattern full of `#` must not cost more than its nodes times the key's words.
struct Reached<'a, T>(Vec<(&'a Node<T>, bool)>);

impl<'a, T> Reached<'a, T> {
    /// `repeats`: the node is a `#`, which may swallow further words.
    fn add(&mut self, node: &'a Node<T>, repeats: bool) {
        if self.0.iter().any(|(other, _)| std::ptr::eq(*other, node)) {
            return;
        }
        self.0.push((node, repeats));
        // A `#` also matches no word at all.
        if let Some(hash) = node.words.get("#") {
            self.add(hash, true);
        }
    }
}

fn walk<T>(root: &Node<T>, words: &[&str], found: &mut impl FnMut(&T)) {
    let mut reached = Reached(Vec::new());
    reached.add(root, false);
    for word in words {
        let mut next = Reached(Vec::with_capacity(reached.0.len()));
        for (node, repeats) in reached.0 {
            if repeats {
                next.add(node, true);
            }
            if let Some(star) = node.words.get("*") {
                next.add(star, false);
            }
            // A key's own `*` or `#` is a plain word and matches only wildcards.
            if !matches!(*word, "*" | "#")
                && let Some(child) = node.words.get(*word)
            {
                next.add(child, false);
            }
        }
        reached = next;
    }
    for (node, _) in reached.0 {
        node.targets.iter().for_each(&mut *found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(patterns: &[&str], key: &str) -> Vec<String> {
        let mut trie = TopicTrie::default();
        patterns.iter().for_each(|p| trie.insert(p, (*p).to_owned()));
        let mut found = Vec::new();
        trie.matches(key, &mut |target: &String| found.push(target.clone()));
        found.sort();
        found.dedup();
        found
    }

    #[test]
    fn words_stars_and_hashes() {
        let all = ["a.b.c", "a.*.c", "a.#", "#", "*.*", "", "a.b", "*", "#.c", "a.#.c", "a..c"];
        for (key, expected) in [
            ("a.b.c", vec!["#", "#.c", "a.#", "a.#.c", "a.*.c", "a.b.c"]),
            ("a.b", vec!["#", "*.*", "a.#", "a.b"]),
            ("a", vec!["#", "*", "a.#"]),
            ("", vec!["", "#"]),
            ("a.c", vec!["#", "#.c", "*.*", "a.#", "a.#.c"]),
            ("a..c", vec!["#", "#.c", "a.#", "a.#.c", "a.*.c", "a..c"]),
            ("x.y.z", vec!["#"]),
        ] {
            assert_eq!(matching(&all, key), expected, "key {key:?}");
        }
    }

    #[test]
    fn a_pattern_full_of_hashes_is_cheap() {
        let pattern = "#.a.".repeat(60) + "b";
        let key = "a.".repeat(120) + "c";
        assert!(matching(&[&pattern], &key).is_empty());
        assert_eq!(matching(&[&pattern], &("a.".repeat(120) + "b")).len(), 1);
    }

    #[test]
    fn removed_patterns_leave_nothing_behind() {
        let mut trie = TopicTrie::default();
        trie.insert("a.*.#", 1);
        trie.insert("a.*", 2);
        trie.remove("a.*.#", &1);
        let mut found = Vec::new();
        trie.matches("a.b", &mut |t| found.push(*t));
        assert_eq!(found, [2]);
        trie.remove("a.*", &2);
        assert!(trie.root.words.is_empty());
    }
}
