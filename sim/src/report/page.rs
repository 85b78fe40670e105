//! A page: a head with a verdict, and sections of figures, tables, plots and words.

use askama::Template;

use super::palette;
use super::plot::Plot;
use super::timeline::Timeline;

/// A page that stands for itself: style and drawings are in it, and it loads nothing.
///
/// ```
/// use sim::report::{Block, Figure, Page, Section, Tone};
/// let figures = Block::Figures(vec![Figure::new("heap", "3.1 MiB"), Figure::new("tasks", "6").with_tone(Tone::Good)]);
/// let page = Page::new("soak").with_verdict("held for 4 h", Tone::Good).with(Section::new("At the end", [figures]));
/// assert!(page.to_html().contains("3.1 MiB"));
/// ```
#[derive(Clone, Debug, Template)]
#[template(path = "page.html")]
pub struct Page {
    title: String,
    lead: String,
    verdict: Option<(String, Tone)>,
    sections: Vec<Section>,
}

/// A part of a page under a heading of its own.
#[derive(Clone, Debug)]
pub struct Section {
    title: String,
    blocks: Vec<Block>,
}

/// A piece of a section. All text is escaped.
#[derive(Clone, Debug)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// A command to copy.
    Command(String),
    /// Sentences of which each stands for itself.
    List(Vec<String>),
    /// Figures side by side.
    Figures(Vec<Figure>),
    /// Rows and columns.
    Table(Table),
    /// Lines over time, with their figures as a table that can be opened.
    Plot(Plot),
    /// Hosts one beneath the other.
    Timeline(Timeline),
    /// More of it, closed at first: what it is, and what is in it.
    More(String, Vec<Block>),
}

/// A figure that is looked at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    label: String,
    value: String,
    tone: Tone,
}

/// Rows and columns of text; a row may be shorter than the headings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What is in each column.
    pub headings: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
}

/// How something is to be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// As it should not be.
    Bad,
}

impl Page {
    /// An empty page.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), lead: String::new(), verdict: None, sections: Vec::new() }
    }

    /// The page with a sentence beneath its title.
    pub fn with_lead(self, lead: impl Into<String>) -> Self {
        Self { lead: lead.into(), ..self }
    }

    /// The page with a verdict beside its title.
    pub fn with_verdict(self, verdict: impl Into<String>, tone: Tone) -> Self {
        Self { verdict: Some((verdict.into(), tone)), ..self }
    }

    /// The page with one more section; an empty one is left out.
    pub fn with(mut self, section: Section) -> Self {
        if !section.blocks.is_empty() {
            self.sections.push(section);
        }
        self
    }

    /// The page with the sections of another one after its own, each titled with what that one is.
    pub fn with_all_of(mut self, other: Self) -> Self {
        let titled = |section: Section| Section { title: format!("{}: {}", other.title, section.title), ..section };
        self.sections.extend(other.sections.into_iter().map(titled));
        self
    }

    /// The whole file.
    pub fn to_html(&self) -> String {
        self.render().expect("writing into memory does not fail, and the template calls nothing that could")
    }

    fn style(&self) -> String {
        let (dark, dashes) = (palette::dark_rules(), palette::dash_rules());
        format!("{dashes}@media(prefers-color-scheme:dark){{{dark}}}")
    }
}

impl Section {
    /// A section of these blocks.
    pub fn new(title: impl Into<String>, blocks: impl IntoIterator<Item = Block>) -> Self {
        Self { title: title.into(), blocks: blocks.into_iter().collect() }
    }
}

impl Figure {
    /// A figure as it is.
    pub fn new(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self { label: label.into(), value: value.into(), tone: Tone::Plain }
    }

    /// The figure, good or bad.
    pub fn with_tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "good",
            Self::Bad => "bad",
        }
    }
}

/// One block, as HTML: blocks lie within blocks, and a template includes no other than itself by calling it.
#[derive(Template)]
#[template(path = "block.html")]
struct Shown<'a> {
    block: &'a Block,
}

impl Block {
    fn html(&self) -> String {
        Shown { block: self }.render().expect("writing into memory does not fail")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;

    fn page_with(block: Block) -> String {
        Page::new("title").with(Section::new("section", [block])).to_html()
    }

    #[test]
    fn text_from_outside_is_escaped_wherever_it_stands() {
        let evil = || "<script>alert(1)</script>".to_owned();
        let table = Table { headings: vec![evil()], rows: vec![vec![evil()]] };
        let plot = Plot::new(evil(), evil(), [Series::new(evil(), [(0.0, 1.0)])]).with_note(evil());
        let blocks = vec![
            Block::Text(evil()),
            Block::Command(evil()),
            Block::List(vec![evil()]),
            Block::Figures(vec![Figure::new(evil(), evil())]),
            Block::Table(table),
            Block::Plot(plot),
        ];
        let page = Page::new(evil()).with_lead(evil()).with_verdict(evil(), Tone::Bad);
        let html = page.with(Section::new(evil(), [Block::More(evil(), blocks)])).to_html();
        assert!(!html.contains("<script"), "{html}");
        assert!(html.matches("alert(1)").count() > 14, "everything is shown, though");
    }

    #[test]
    fn a_page_names_no_address_but_the_name_of_svg() {
        let html = page_with(Block::Plot(Plot::new("a", "b", [Series::new("c", [(0.0, 1.0), (1.0, 2.0)])])));
        let addresses = html.matches("://").count();
        assert_eq!(addresses, html.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
        assert!(html.contains("default-src 'none'"));
        for loading in ["<script", "<link", "<img", "<iframe", "@import", "url("] {
            assert!(!html.contains(loading), "{loading}");
        }
    }

    #[test]
    fn a_plot_comes_with_a_text_and_a_table() {
        let html =
            page_with(Block::Plot(Plot::new("Queue", "hosts", [Series::new("depth", [(0.0, 1.0), (9.0, 7.0)])])));
        assert!(html.contains("role=\"img\" aria-label=\"Queue"), "{html}");
        assert!(html.contains("depth: mean 4 hosts, peak 7 hosts at 9 seconds"));
        assert!(html.contains("<th scope=\"col\">depth, hosts</th>"));
    }

    #[test]
    fn an_empty_section_is_left_out() {
        assert!(!Page::new("title").with(Section::new("nothing", [])).to_html().contains("nothing"));
    }
}
