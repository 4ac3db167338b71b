//! The tables and the picture, and where they are kept.

use std::fmt::Write;

use hdrhistogram::Histogram;
use testkit::tools::repository;

/// The documents with the tables and with the forecasts, and the lines between which these stand.
const DOCUMENT: &str = "docs/performance.md";
const FORECASTS: &str = "docs/sizing.md";
const BETWEEN: [&str; 2] = ["<!-- make bench: begin -->\n", "<!-- make bench: end -->\n"];

/// The picture, and how the document shows it.
const PICTURE: &str = "docs/performance/checks.svg";
const LINK: &str = "![How each check compares with its goal](performance/checks.svg)";

/// The quantiles of the table of times, as a share and as a heading.
const QUANTILES: [(f64, &str); 4] = [
    (0.5, "median"),
    (0.9, "90 of 100 within"),
    (0.99, "99 of 100 within"),
    (0.999, "999 of 1000 within"),
];

/// The picture's sizes, in pixels: of a row, of the names, of a ratio of one, and of all.
const ROW: usize = 26;
const NAMES: usize = 360;
const ONE: f64 = 140.0;
const WIDTH: usize = 900;

/// How many nanoseconds the checks of each kind took.
type Times = Vec<(&'static str, Histogram<u64>)>;

/// All that was measured.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) sections: Vec<Section>,
    /// How long the checks took: of each load, each kind.
    pub(crate) times: Vec<(&'static str, Times)>,
    /// What else there is to tell: what, how much, and at most how much it should be.
    pub(crate) facts: Vec<[String; 3]>,
    /// What a run at scale has shown, next to what was predicted.
    pub(crate) forecasts: Vec<Forecast>,
    /// How many nanoseconds late a thread woke that only slept.
    pub(crate) delay: Option<Histogram<u64>>,
}

/// A figure that was predicted, and measured.
pub(crate) struct Forecast {
    pub(crate) what: &'static str,
    pub(crate) predicted: f64,
    pub(crate) measured: f64,
}

/// One table.
pub(crate) struct Section {
    /// Its name in the picture.
    pub(crate) name: &'static str,
    /// The headings of the rows, of the figure and of the ratio.
    pub(crate) head: [&'static str; 3],
    pub(crate) rows: Vec<Row>,
}

/// One row of it.
pub(crate) struct Row {
    name: &'static str,
    /// The median, in microseconds.
    figure: f64,
    /// Its ratio to another's in the same round: the median, the least and the most.
    ratio: [f64; 3],
    /// The most that the median of the ratio should be.
    goal: Option<f64>,
    /// The median of Redis's processor time, in microseconds.
    pub(crate) redis: Option<f64>,
}

impl Row {
    /// The row of what each round has shown, next to what it has shown of another.
    pub(crate) fn of(name: &'static str, values: &[f64], base: &[f64], goal: Option<f64>) -> Self {
        let ratios = values.iter().zip(base).map(|(value, base)| value / base);
        let ratios: Vec<f64> = ratios.collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        Self {
            name,
            figure: median(values),
            ratio: [median(&ratios), least, most],
            goal,
            redis: None,
        }
    }
}

/// The middle of these values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Report {
    /// Puts the tables and the picture into the documents.
    pub(crate) fn publish(&self) {
        put(DOCUMENT, &format!("\n{LINK}\n\n{}\n", self.tables()));
        put(FORECASTS, &format!("\n{}\n", self.forecasts()));
        let picture = repository(PICTURE);
        std::fs::create_dir_all(picture.parent().unwrap()).unwrap();
        std::fs::write(picture, self.picture()).unwrap();
    }

    /// The tables.
    pub(crate) fn tables(&self) -> String {
        let mut text: String = self.sections.iter().map(Section::table).collect();
        let heads = QUANTILES.map(|(_, head)| format!(" {head} |")).concat();
        let late = self.delay.iter();
        let late = late.map(|late| ("a thread that only sleeps", late));
        let mut late: Vec<_> = late.collect();
        for (load, times) in &self.times {
            let _ = writeln!(text, "| {load} |{heads}\n|---|--:|--:|--:|--:|");
            let times = times.iter().map(|(name, times)| (*name, times));
            for (name, times) in times.chain(late.drain(..)) {
                let shown = |share| times.value_at_quantile(share) as f64 / 1e6;
                let shown = QUANTILES.map(|(share, _)| format!(" {:.3} ms |", shown(share)));
                let _ = writeln!(text, "| {name} |{}", shown.concat());
            }
            text.push('\n');
        }
        text += "| the program | | goal |\n|---|--:|--:|\n";
        for [what, figure, goal] in &self.facts {
            let _ = writeln!(text, "| {what} | {figure} | {goal} |");
        }
        text
    }

    /// What was predicted and measured at scale.
    pub(crate) fn forecasts(&self) -> String {
        let mut text = String::from("| | predicted | measured | ratio |\n|---|--:|--:|--:|\n");
        for forecast in &self.forecasts {
            let [predicted, measured] = [forecast.predicted, forecast.measured].map(shown);
            let ratio = match forecast.measured / forecast.predicted {
                ratio if ratio.is_finite() => format!("{ratio:.2}"),
                _ => String::new(),
            };
            let _ = writeln!(
                text,
                "| {} | {predicted} | {measured} | {ratio} |",
                forecast.what
            );
        }
        text
    }

    /// The picture: a bar for each ratio that has a goal, a line for what the rounds have shown, and
    /// a mark for the goal.
    fn picture(&self) -> String {
        let rows = self.sections.iter().flat_map(|section| {
            let with_goal = section.rows.iter().filter(|row| row.goal.is_some());
            with_goal.map(move |row| (section, row))
        });
        let (mut bars, mut y) = (String::new(), ROW);
        for (section, row) in rows {
            let [ratio, least, most] = row.ratio.map(|ratio| ratio * ONE);
            let goal = row.goal.unwrap_or_default() * ONE;
            let (text, middle, x) = (y + 17, y + 12, NAMES as f64);
            let _ = write!(
                bars,
                "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\">{}: {}</text>\n\
                 <rect x=\"{NAMES}\" y=\"{}\" width=\"{ratio:.1}\" height=\"16\" fill=\"#4a7fb5\"/>\n\
                 <path d=\"M{:.1} {middle}H{:.1}\" stroke=\"#222\"/>\n\
                 <path d=\"M{:.1} {y}v{}\" stroke=\"#c0392b\" stroke-width=\"3\"/>\n",
                NAMES - 8,
                section.name,
                row.name,
                y + 4,
                x + least,
                (x + most).min(WIDTH as f64),
                x + goal,
                ROW - 2,
            );
            y += ROW;
        }
        let one = NAMES as f64 + ONE;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <path d=\"M{one} 0V{y}\" stroke=\"#999\" stroke-dasharray=\"4\"/>\n\
             <text x=\"{NAMES}\" y=\"16\">bar: median ratio; thin line: all rounds; red: goal; dashed: 1.00</text>\n\
             {bars}</svg>\n",
            y + ROW / 2
        )
    }
}

/// A figure with three digits or four, or all before the point.
fn shown(figure: f64) -> String {
    let digits = match figure {
        0.0 | 100.0.. => 0,
        10.0..100.0 => 1,
        1.0..10.0 => 2,
        0.1..1.0 => 3,
        _ => 4,
    };
    format!("{figure:.digits$}")
}

/// Puts a text into a document.
fn put(document: &str, text: &str) {
    let path = repository(document);
    let whole = std::fs::read_to_string(&path).unwrap();
    let [begin, end] = BETWEEN;
    let (before, rest) = whole.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    std::fs::write(&path, format!("{before}{begin}{text}{end}{after}")).unwrap();
}

impl Section {
    /// The table, and an empty line.
    fn table(&self) -> String {
        let [what, figure, ratio] = self.head;
        let has_redis = self.rows.iter().any(|row| row.redis.is_some());
        let (redis, line) = if has_redis {
            (" Redis's processor |", "--:|")
        } else {
            ("", "")
        };
        let mut text = format!(
            "| {what} | {figure} | {ratio} | in each round | goal |{redis}\n|---|--:|--:|--:|--:|{line}\n"
        );
        for row in &self.rows {
            let [ratio, least, most] = row.ratio;
            let goal = row.goal.map(|goal| format!("{goal:.2}"));
            let redis = row.redis.map(|redis| format!(" {redis:.1} us |"));
            let _ = writeln!(
                text,
                "| {} | {:.1} us | {ratio:.2} | {least:.2} to {most:.2} | {} |{}",
                row.name,
                row.figure,
                goal.unwrap_or_default(),
                redis.unwrap_or_default()
            );
        }
        text.push('\n');
        text
    }
}
