//! YAML as `yaml.safe_load` of PyYAML reads it, which is what Patroni calls (`patroni/config.py`), with the line of everything.
//!
//! `saphyr-parser` splits the text into events. This module does the rest by PyYAML's rules, which are those of YAML 1.1: the
//! types of plain scalars, tags, merge keys. It differs from PyYAML in what it refuses: a key that stands twice (PyYAML takes the
//! last), an alias to the collection that it stands in, more than the bounds below, and a tab at the beginning of a line of a quoted
//! text; and in one thing that it takes: an anchor that is set twice.

mod resolve;
mod text;

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

pub(crate) use resolve::Value;

use crate::Unreadable;
use resolve::Tagged;

/// The most bytes of a file. Patroni's configurations have some kilobytes.
pub const FILE_LIMIT: usize = 1 << 20;

/// The most collections that lie in each other.
const DEPTH: usize = 64;

/// The message about more of them.
const TOO_DEEP: &str = "more than 64 collections lie in each other";

/// The most nodes of a file if each alias counts as all that it stands for.
const NODES: usize = 200_000;

/// A document and the name of its file.
#[derive(Debug)]
pub(crate) struct Document {
    /// The file's name, for messages.
    file: String,
    nodes: Vec<Node>,
    root: usize,
}

#[derive(Debug)]
struct Node {
    value: Value,
    line: usize,
    /// Whether it is a number that is not written as Python prints it.
    is_rewritten: bool,
    /// The number of nodes in it, itself included, with each alias as all that it stands for.
    size: usize,
}

/// A place of a collection: the node that stands there, and the line of this place, which is not that of the node if it is an alias.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    node: usize,
    line: usize,
}

/// A key of a mapping and its value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    key: Item,
    value: Item,
}

/// A node at a place of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'d> {
    document: &'d Document,
    item: Item,
}

impl Document {
    /// Reads the bytes of a file of this name.
    ///
    /// # Errors
    /// Fails if PyYAML would not read the file, and for what the module's description names.
    pub(crate) fn read(file: &str, bytes: &[u8]) -> Result<Self, Unreadable> {
        let text = text::read(file, bytes)?;
        Composer::new(file, text).compose().map_err(|error| text::explain(text, error))
    }

    /// Returns the node at the top.
    pub(crate) fn root(&self) -> Element<'_> {
        Element { document: self, item: Item { node: self.root, line: self.nodes[self.root].line } }
    }
}

impl<'d> Element<'d> {
    /// Returns the value.
    pub(crate) fn value(self) -> &'d Value {
        &self.document.nodes[self.item.node].value
    }

    /// Returns the line, the first of which is 1.
    pub(crate) fn line(self) -> usize {
        self.item.line
    }

    /// Returns the file's name.
    pub(crate) fn file(self) -> &'d str {
        &self.document.file
    }

    /// Returns the text; `None` if it is something else.
    pub(crate) fn text(self) -> Option<&'d str> {
        match self.value() {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns whether it is an integer that Python prints in other characters than those of the file, such as `0700`.
    pub(crate) fn is_rewritten(self) -> bool {
        self.document.nodes[self.item.node].is_rewritten
    }

    /// Returns the pairs of a mapping in Python's order: the place of a key that was overridden is its first one. `None` if it is
    /// no mapping.
    pub(crate) fn pairs(self) -> Option<impl Iterator<Item = (Element<'d>, Element<'d>)>> {
        let Value::Map(pairs) = self.value() else { return None };
        let document = self.document;
        Some(
            pairs.iter().map(move |pair| {
                (Element { document, item: pair.key }, Element { document, item: pair.value })
            }),
        )
    }

    /// Returns the items of a sequence; `None` if it is none.
    pub(crate) fn items(self) -> Option<impl Iterator<Item = Element<'d>>> {
        let Value::List(items) = self.value() else { return None };
        let document = self.document;
        Some(items.iter().map(move |item| Element { document, item: *item }))
    }

    /// Returns a key of a mapping and its value; `None` if it is no mapping or does not have the key.
    pub(crate) fn entry(self, name: &str) -> Option<(Element<'d>, Element<'d>)> {
        self.pairs()?.find(|(key, _)| key.text() == Some(name))
    }

    /// Returns whether Python takes the value for true.
    pub(crate) fn is_true(self) -> bool {
        match self.value() {
            Value::Null => false,
            Value::Bool(flag) => *flag,
            Value::Integer(digits) => digits != "0",
            Value::Float(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Date(_) => true,
            Value::List(items) => !items.is_empty(),
            Value::Map(pairs) => !pairs.is_empty(),
        }
    }

    /// Returns every scalar that is written in the value, keys included.
    pub(crate) fn scalars(self) -> Vec<Element<'d>> {
        let document = self.document;
        let mut found = Vec::new();
        let mut open = vec![self.item];
        while let Some(item) = open.pop() {
            match &document.nodes[item.node].value {
                Value::List(items) => open.extend(items.iter().rev()),
                Value::Map(pairs) => open.extend(pairs.iter().rev().flat_map(|pair| [pair.value, pair.key])),
                _ => found.push(Element { document, item }),
            }
        }
        found
    }
}

/// A collection that is not complete yet.
struct Open {
    anchor: usize,
    line: usize,
    size: usize,
    tag: Option<Tagged>,
    content: Content,
}

enum Content {
    List(Vec<Item>),
    Map {
        own: Vec<Pair>,
        /// What `<<` brings, in the order in which PyYAML assigns it.
        merged: Vec<Pair>,
        key: Option<Key>,
    },
}

/// The key whose value comes next.
enum Key {
    Of(Item),
    Merge,
}

/// Makes nodes of events.
struct Composer<'t> {
    file: &'t str,
    text: &'t str,
    nodes: Vec<Node>,
    anchors: HashMap<usize, usize>,
    open: Vec<Open>,
    root: Option<usize>,
    /// Scalars in which tabs may be content.
    with_tabs: Vec<text::WithTabs>,
}

impl<'t> Composer<'t> {
    fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            nodes: Vec::new(),
            anchors: HashMap::new(),
            open: Vec::new(),
            root: None,
            with_tabs: Vec::new(),
        }
    }

    fn error(&self, line: usize, message: impl Into<String>) -> Unreadable {
        Unreadable::at(self.file, line, message)
    }

    fn compose(mut self) -> Result<Document, Unreadable> {
        let mut parser = Parser::new_from_str(self.text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let why = match error.info() {
                    "recursion limit exceeded" => TOO_DEEP.to_owned(),
                    info => format!("not YAML: {info}"),
                };
                self.error(error.marker().line(), why)
            })?;
            self.take(event, span)?;
        }
        if let Some(line) = text::misplaced_tab(self.text, &self.with_tabs) {
            return Err(self.error(line, text::TAB));
        }
        let Some(root) = self.root else {
            return Err(Unreadable::whole(self.file, "the file is empty"));
        };
        Ok(Document { file: self.file.to_owned(), nodes: self.nodes, root })
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Unreadable> {
        let line = span.start.line();
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(self.error(line, "a second document begins here, and Patroni reads a file with one"))
            }
            Event::DocumentStart(_) => Ok(()),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.add(Item { node: *node, line }),
                None => Err(self.error(line, "the alias stands for the collection that it is in")),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain;
                if !is_plain {
                    self.with_tabs.push(text::WithTabs {
                        line,
                        column: span.start.col(),
                        last_line: span.end.line(),
                        is_block: matches!(style, ScalarStyle::Literal | ScalarStyle::Folded),
                    });
                }
                let tag = tag.map(|tag| Tagged::new(&tag.handle, &tag.suffix));
                // A key may be a merge; a value may not.
                if is_plain && tag.is_none() && text == "<<" {
                    return self.merge(line);
                }
                // Of a scalar with a tag and no text the parser has an empty text; without a tag it has "~".
                let value = resolve::scalar(&text, is_plain, tag, self.expects_key())
                    .map_err(|why| self.error(line, why))?;
                let is_rewritten = matches!(&value, Value::Integer(digits) if *digits != text);
                self.finish(anchor, Node { value, line, is_rewritten, size: 1 })
            }
            Event::SequenceStart(anchor, tag) => {
                let tag = tag.map(|tag| Tagged::new(&tag.handle, &tag.suffix));
                self.begin(Open { anchor, line, size: 1, tag, content: Content::List(Vec::new()) })
            }
            Event::MappingStart(anchor, tag) => {
                let tag = tag.map(|tag| Tagged::new(&tag.handle, &tag.suffix));
                let content = Content::Map { own: Vec::new(), merged: Vec::new(), key: None };
                self.begin(Open { anchor, line, size: 1, tag, content })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(line),
        }
    }

    /// Returns whether the next node is a key.
    fn expects_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { content: Content::Map { key: None, .. }, .. }))
    }

    fn begin(&mut self, open: Open) -> Result<(), Unreadable> {
        if self.open.len() == DEPTH {
            return Err(self.error(open.line, TOO_DEEP));
        }
        if self.expects_key() {
            return Err(self.error(open.line, text::COLLECTION_AS_KEY));
        }
        self.open.push(open);
        Ok(())
    }

    fn merge(&mut self, line: usize) -> Result<(), Unreadable> {
        match self.open.last_mut() {
            Some(Open { content: Content::Map { key: key @ None, .. }, .. }) => {
                *key = Some(Key::Merge);
                Ok(())
            }
            _ => Err(self.error(line, "PyYAML reads `<<` as a key only: put it in quotes")),
        }
    }

    fn end(&mut self, line: usize) -> Result<(), Unreadable> {
        let Some(open) = self.open.pop() else {
            return Err(self.error(line, "not YAML: a collection ends that has not begun"));
        };
        let (value, expected) = match open.content {
            Content::List(items) => (Value::List(items), Tagged::List),
            Content::Map { own, merged, .. } => (Value::Map(self.mapping(own, merged)?), Tagged::Map),
        };
        if open.tag.is_some_and(|tag| tag != expected && tag != Tagged::None) {
            return Err(self.error(open.line, resolve::UNKNOWN_TAG));
        }
        self.finish(open.anchor, Node { value, line: open.line, is_rewritten: false, size: open.size })
    }

    fn finish(&mut self, anchor: usize, node: Node) -> Result<(), Unreadable> {
        let line = node.line;
        self.nodes.push(node);
        let node = self.nodes.len() - 1;
        if anchor != 0 {
            self.anchors.insert(anchor, node);
        }
        self.add(Item { node, line })
    }

    /// Puts a complete node into the collection that is open.
    fn add(&mut self, item: Item) -> Result<(), Unreadable> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(item.node);
            return Ok(());
        };
        open.size = open.size.saturating_add(self.nodes[item.node].size);
        if open.size > NODES {
            let why = format!(
                "the file has more than {NODES} values, if each alias counts as all that it stands for"
            );
            return Err(self.error(item.line, why));
        }
        match &mut open.content {
            Content::List(items) => items.push(item),
            Content::Map { key: key @ None, .. } => {
                if matches!(self.nodes[item.node].value, Value::List(_) | Value::Map(_)) {
                    return Err(self.error(item.line, text::COLLECTION_AS_KEY));
                }
                *key = Some(Key::Of(item));
            }
            Content::Map { own, merged, key } => match key.take() {
                Some(Key::Of(key)) => own.push(Pair { key, value: item }),
                Some(Key::Merge) | None => {
                    merge_into(merged, &self.nodes, item)
                        .map_err(|why| Unreadable::at(self.file, item.line, why))?;
                }
            },
        }
        Ok(())
    }

    /// Returns the pairs of a mapping as Python's dictionary has them (`construct_mapping` of PyYAML).
    fn mapping(&self, own: Vec<Pair>, merged: Vec<Pair>) -> Result<Vec<Pair>, Unreadable> {
        let mut lines: HashMap<String, usize> = HashMap::new();
        for pair in &own {
            let key = &self.nodes[pair.key.node].value;
            if let Some(first) = lines.insert(key.identity(), pair.key.line) {
                let message = format!(
                    "the key `{}` stands here and in line {first}: keep one of them (PyYAML takes the last)",
                    key.shown()
                );
                return Err(self.error(pair.key.line, message));
            }
        }
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut pairs: Vec<Pair> = Vec::new();
        let merged_pairs = merged.len();
        for (index, pair) in merged.into_iter().chain(own).enumerate() {
            let key = &self.nodes[pair.key.node].value;
            let identity = key.identity();
            // PyYAML 6.0 takes the first mapping of a list, 6.0.4 the last or the first.
            let differs = |place: &usize| pairs[*place].value.node != pair.value.node;
            if index < merged_pairs
                && !lines.contains_key(&identity)
                && places.get(&identity).is_some_and(differs)
            {
                let message = format!(
                    "`<<` brings the key `{}` twice, and PyYAML's releases differ in which one counts: write the key itself",
                    key.shown()
                );
                return Err(self.error(pair.key.line, message));
            }
            match places.get(&identity) {
                Some(place) => pairs[*place] = pair,
                None => {
                    places.insert(identity, pairs.len());
                    pairs.push(pair);
                }
            }
        }
        Ok(pairs)
    }
}

/// Adds what `<<` brings (`flatten_mapping` of PyYAML): a mapping, or a list of mappings.
fn merge_into(merged: &mut Vec<Pair>, nodes: &[Node], item: Item) -> Result<(), &'static str> {
    let refused = "`<<` takes a mapping or a list of mappings";
    match &nodes[item.node].value {
        Value::Map(pairs) => merged.extend(pairs),
        Value::List(items) => {
            for item in items {
                let Value::Map(pairs) = &nodes[item.node].value else { return Err(refused) };
                merged.extend(pairs);
            }
        }
        _ => return Err(refused),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
