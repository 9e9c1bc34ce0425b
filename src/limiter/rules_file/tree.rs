//! YAML as a tree of texts with their places.
//!
//! Only what a rules file needs: anchors, aliases, tags and several documents are refused, so that a file says what it
//! seems to say and cannot grow when it is read. Plain scalars stay texts: what they mean is for the reader to say.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::findings::{Place, Report, lines, shown};
use super::likely_secrets;

/// Deepest nesting.
const DEEPEST: usize = 16;
/// Most nodes.
const MOST_NODES: usize = 200_000;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Nothing,
    /// A scalar, and whether it stands there without quotes.
    Text { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A mapping, with doubled names in it.
    Members(Vec<(Name, Node)>),
    /// Something that was refused, and told already.
    Refused,
}

/// The name of a member, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) place: Place,
    pub(super) text: String,
}

/// The tree of a file; `None` if it is no YAML, which is reported.
pub(super) fn read(file: usize, report: &mut Report) -> Option<Node> {
    if !report.is_text(file) {
        return None;
    }
    let text = report.text(file).to_owned();
    let text = text.trim_start_matches('\u{feff}');
    let mut growing = Growing {
        file,
        open: Vec::new(),
        root: None,
        nodes: 0,
        documents: 0,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let grown = match event {
            Ok((event, span)) => growing.take(event, span, report),
            Err(error) => {
                not_yaml(file, text, &error, report);
                None
            }
        };
        grown?;
    }
    // An empty file is a document without a value.
    let nothing = || Node {
        place: Place::whole(file),
        value: Value::Nothing,
    };
    Some(growing.root.unwrap_or_else(nothing))
}

fn not_yaml(file: usize, text: &str, error: &ScanError, report: &mut Report) {
    let at = place(file, *error.marker(), 1);
    let behind = lines(text).nth(at.line().saturating_sub(1));
    let first = behind.and_then(|line| line.chars().nth(error.marker().col()));
    let advice = match first {
        Some('*') => ": a text that begins with `*` stands in quotes",
        Some('@' | '`' | '%') => ": a text that begins with this character stands in quotes",
        Some('\t') => ": YAML is indented with spaces",
        _ => "",
    };
    likely_secrets::hide(at, report);
    report.error(at, format!("not YAML ({}){advice}", error.info()));
}

fn place(file: usize, marker: Marker, width: usize) -> Place {
    Place::new(file, marker.line().max(1), marker.col() + 1, width)
}

struct Growing {
    file: usize,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    documents: usize,
}

enum Open {
    List(Place, Vec<Node>),
    Members(Place, Vec<(Name, Node)>, Option<Name>),
}

impl Growing {
    /// Takes one event; `None` when reading on makes no sense.
    fn take(&mut self, event: Event<'_>, span: Span, report: &mut Report) -> Option<()> {
        let here = place(self.file, span.start, 1);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    report.error(here, "a second document: a rules file is one");
                    return None;
                }
            }
            Event::Alias(_) => {
                report.error(
                    here,
                    "an alias: write it out, or put a text that begins with `*` in quotes",
                );
                return self.add(here, Value::Refused, report);
            }
            Event::Scalar(text, style, anchor, tag) => {
                let here = place(self.file, span.start, width(&text, style, span));
                let value = if refuses(here, anchor, tag.is_some(), report) {
                    Value::Refused
                } else {
                    scalar(text.into_owned(), style)
                };
                return self.add(here, value, report);
            }
            Event::SequenceStart(anchor, tag) => {
                refuses(here, anchor, tag.is_some(), report);
                return self.begin(here, Open::List(here, Vec::new()), report);
            }
            Event::MappingStart(anchor, tag) => {
                refuses(here, anchor, tag.is_some(), report);
                return self.begin(here, Open::Members(here, Vec::new(), None), report);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (place, value) = match self.open.pop()? {
                    Open::List(place, nodes) => (place, Value::List(nodes)),
                    Open::Members(place, members, _) => (place, Value::Members(members)),
                };
                return self.add(place, value, report);
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Some(())
    }

    fn begin(&mut self, here: Place, open: Open, report: &mut Report) -> Option<()> {
        if self.open.len() == DEEPEST {
            report.error(here, format!("nested deeper than {DEEPEST} levels"));
            return None;
        }
        self.open.push(open);
        Some(())
    }

    fn add(&mut self, place: Place, value: Value, report: &mut Report) -> Option<()> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            report.error(place, format!("more than {MOST_NODES} values"));
            return None;
        }
        let node = Node { place, value };
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, nodes)) => nodes.push(node),
            Some(Open::Members(_, members, pending)) => match pending.take() {
                Some(name) => members.push((name, node)),
                None => *pending = Some(name(node, report)),
            },
        }
        Some(())
    }
}

/// A node that stands where a name must.
fn name(node: Node, report: &mut Report) -> Name {
    let text = match node.value {
        Value::Text { text, .. } => text,
        // An empty name is an unknown one.
        Value::Nothing | Value::Refused => String::new(),
        Value::List(_) | Value::Members(_) => {
            report.error(node.place, "a list or a mapping as the name of a member");
            String::new()
        }
    };
    Name {
        place: node.place,
        text,
    }
}

fn scalar(text: String, style: ScalarStyle) -> Value {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
        Value::Nothing
    } else {
        Value::Text { text, plain }
    }
}

/// Reports an anchor or a tag.
fn refuses(here: Place, anchor: usize, tagged: bool, report: &mut Report) -> bool {
    if anchor > 0 {
        report.error(
            here,
            "an anchor: rules files have none; put a text that begins with `&` in quotes",
        );
    }
    if tagged {
        report.error(
            here,
            "a tag: rules files have none; put a text that begins with `!` in quotes",
        );
    }
    anchor > 0 || tagged
}

/// How many characters of its first line a scalar takes.
fn width(text: &str, style: ScalarStyle, span: Span) -> usize {
    match style {
        ScalarStyle::Plain => text.chars().count().max(1),
        _ if span.start.line() == span.end.line() => {
            span.end.col().saturating_sub(span.start.col()).max(1)
        }
        _ => 1,
    }
}

impl Node {
    /// What this is, in the words of a message.
    pub(super) fn what(&self) -> String {
        match &self.value {
            Value::Nothing => "nothing".to_owned(),
            Value::Text { text, .. } => shown(text),
            Value::List(_) => "a list".to_owned(),
            Value::Members(_) => "a mapping".to_owned(),
            Value::Refused => "something refused".to_owned(),
        }
    }

    /// Reports that this is not what is allowed here, unless it was reported already.
    pub(super) fn is_not(&self, allowed: &str, report: &mut Report) {
        match &self.value {
            Value::Refused => {}
            Value::Nothing => report.error(
                self.place,
                format!("nothing stands here: it takes {allowed}"),
            ),
            _ => report.error(self.place, format!("{} is not {allowed}", self.what())),
        }
    }
}
