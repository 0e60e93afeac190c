//! Reads YAML as PyYAML's `yaml.safe_load` does, which Patroni calls (`patroni/config.py`). Keeps the line of every value.
//!
//! `saphyr-parser` splits the text into events. This module interprets them by the rules of YAML 1.1 as PyYAML implements them: types of
//! plain scalars, tags and merge keys.
//!
//! Unlike PyYAML, this module refuses:
//!
//! * a repeated key (PyYAML uses the last one);
//! * an alias to a collection that contains the alias;
//! * files beyond the bounds below;
//! * a tab at the beginning of a line in a quoted scalar.
//!
//! Unlike PyYAML, it accepts an anchor that is defined twice.

mod resolve;
mod text;

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

pub(crate) use resolve::Value;

use crate::Unreadable;
use resolve::Tagged;

/// How many bytes a file may have. Patroni's configurations have a few kilobytes.
pub const FILE_LIMIT: usize = 1 << 20;

/// How deep collections may be nested.
const DEPTH: usize = 64;

/// The message for collections that are nested deeper.
const TOO_DEEP: &str = "collections are nested more than 64 deep";

/// How many nodes a file may have after every alias is replaced by the nodes that it refers to.
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
    /// Whether the node is an integer that Python prints in another form than that in the file.
    is_rewritten: bool,
    /// The number of nodes in this node, including itself, after every alias is replaced by the nodes that it refers to.
    size: usize,
}

/// An element of a collection: its node and its line. If the element is an alias, this is the line of the alias.
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
    /// Fails if PyYAML would not read the file, and in the cases that the module's documentation lists.
    pub(crate) fn read(file: &str, bytes: &[u8]) -> Result<Self, Unreadable> {
        let text = text::read(file, bytes)?;
        Composer::new(file, text).compose().map_err(|error| text::explain(text, error))
    }

    /// Returns the root node.
    pub(crate) fn root(&self) -> Element<'_> {
        Element { document: self, item: Item { node: self.root, line: self.nodes[self.root].line } }
    }
}

impl<'d> Element<'d> {
    /// Returns the value.
    pub(crate) fn value(self) -> &'d Value {
        &self.document.nodes[self.item.node].value
    }

    /// Returns the line, counted from 1.
    pub(crate) fn line(self) -> usize {
        self.item.line
    }

    /// Returns the file's name.
    pub(crate) fn file(self) -> &'d str {
        &self.document.file
    }

    /// Returns the text of a string; `None` if the value is not a string.
    pub(crate) fn text(self) -> Option<&'d str> {
        match self.value() {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns whether the value is an integer that Python prints in another form than that in the file, such as `0700`.
    pub(crate) fn is_rewritten(self) -> bool {
        self.document.nodes[self.item.node].is_rewritten
    }

    /// Returns the pairs of a mapping in Python's order, in which a key that was overridden keeps its first place. `None` if the value is
    /// not a mapping.
    pub(crate) fn pairs(self) -> Option<impl Iterator<Item = (Element<'d>, Element<'d>)>> {
        let Value::Map(pairs) = self.value() else { return None };
        let document = self.document;
        Some(
            pairs.iter().map(move |pair| {
                (Element { document, item: pair.key }, Element { document, item: pair.value })
            }),
        )
    }

    /// Returns the items of a sequence; `None` if the value is not a sequence.
    pub(crate) fn items(self) -> Option<impl Iterator<Item = Element<'d>>> {
        let Value::List(items) = self.value() else { return None };
        let document = self.document;
        Some(items.iter().map(move |item| Element { document, item: *item }))
    }

    /// Returns a key of a mapping and its value; `None` if this is not a mapping or does not have the key.
    pub(crate) fn entry(self, name: &str) -> Option<(Element<'d>, Element<'d>)> {
        self.pairs()?.find(|(key, _)| key.text() == Some(name))
    }

    /// Returns whether the value is true in a Python condition.
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

    /// Returns every scalar in the value, including keys.
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
        /// The pairs that `<<` merges, in the order in which PyYAML assigns them.
        merged: Vec<Pair>,
        key: Option<Key>,
    },
}

/// The key whose value comes next.
enum Key {
    Of(Item),
    Merge,
}

/// Composes nodes from the parser's events.
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
            Event::DocumentStart(_) if self.root.is_some() => Err(self.error(
                line,
                "a second document begins here, but Patroni reads only files with one document",
            )),
            Event::DocumentStart(_) => Ok(()),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => self.add(Item { node: *node, line }),
                None => Err(self.error(line, "the alias refers to the collection that contains it")),
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
                // `<<` is a merge key. `merge` refuses it as a value.
                if is_plain && tag.is_none() && text == "<<" {
                    return self.merge(line);
                }
                // For a scalar without text, the parser returns an empty text if the scalar has a tag, and "~" if not.
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
            _ => Err(self.error(line, "PyYAML accepts `<<` only as a key: put it in quotes")),
        }
    }

    fn end(&mut self, line: usize) -> Result<(), Unreadable> {
        let Some(open) = self.open.pop() else {
            return Err(self.error(line, "not YAML: a collection ends that did not begin"));
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
                "the file has more than {NODES} values, if every alias is replaced by the values that it refers to"
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

    /// Returns the pairs that the dictionary in Python would have (`construct_mapping` in PyYAML).
    fn mapping(&self, own: Vec<Pair>, merged: Vec<Pair>) -> Result<Vec<Pair>, Unreadable> {
        let mut lines: HashMap<String, usize> = HashMap::new();
        for pair in &own {
            let key = &self.nodes[pair.key.node].value;
            if let Some(first) = lines.insert(key.identity(), pair.key.line) {
                let message = format!(
                    "the key `{}` is here and in line {first}: keep one of them (PyYAML uses the last)",
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
            // PyYAML 6.0 uses the first mapping in a list, 6.0.4 the last or the first.
            let differs = |place: &usize| pairs[*place].value.node != pair.value.node;
            if index < merged_pairs
                && !lines.contains_key(&identity)
                && places.get(&identity).is_some_and(differs)
            {
                let message = format!(
                    "`<<` merges the key `{}` twice, and PyYAML's releases differ in which value they use: write the key itself",
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

/// Adds the pairs of the value of `<<` (`flatten_mapping` in PyYAML), which is a mapping or a list of mappings.
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
