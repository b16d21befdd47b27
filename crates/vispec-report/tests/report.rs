//! Reports of synthetic cells: files, plots, and the list of incomplete cells.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

use vispec_report::ReportError;
use vispec_report::plots::{Theme, to_png};
use vispec_report::record::{
    CellHeader, CellSettings, HEADER_FILE, Method, RECORDS_FILE, RecordWriter, Shard, TotalToken,
    TreeSettings,
};
use vispec_report::report::{Predictions, Report};
use vispec_report::synthetic;

fn write_cell(root: &Path, settings: CellSettings, records: u64) {
    let dir = root.join(settings.directory_name());
    write_shard(&dir, settings, records, Shard::WHOLE);
}

fn write_shard(dir: &Path, settings: CellSettings, records: u64, shard: Shard) {
    let mut header = CellHeader::new(settings, "0.1.0");
    header.shard = shard;
    header.planned_prompts = shard.share_of(header.settings.prompts);
    let mut opened = RecordWriter::open(dir, &header).unwrap();
    for index in (0..records).filter(|&index| shard.holds(index)) {
        let record = synthetic::record(&header.settings, index);
        opened.writer.append(&record).unwrap();
    }
}

/// Writes cells with every method, three tree sizes, two tasks and two temperatures.
fn write_cells(root: &Path) {
    for method in Method::ALL {
        for task in ["scenes_short", "a_task_with_quite_a_long_name"] {
            for temperature in [0.0, 1.0] {
                let mut settings = synthetic::settings(method, task, 12);
                settings.temperature = temperature;
                write_cell(root, settings.clone(), 12);
                if method.has_network() {
                    for total_token in [TotalToken::Nodes(8), TotalToken::Auto] {
                        settings.tree = Some(TreeSettings {
                            depth: 2,
                            top_k: 4,
                            total_token,
                        });
                        write_cell(root, settings.clone(), 12);
                    }
                }
            }
        }
    }
}

fn report(root: &Path) -> Report {
    Report::of(root, Predictions::SmallerTrees).unwrap()
}

#[test]
fn every_table_and_plot_is_written_and_the_page_needs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    write_cells(&dir.path().join("cells"));
    let report = report(dir.path());
    let out = dir.path().join("out");
    report.write(&out).unwrap();
    for table in &report.tables {
        for row in &table.rows {
            assert_eq!(row.len(), table.columns.len(), "{}", table.name);
        }
        for extension in ["csv", "tex"] {
            assert!(
                out.join(format!("tables/{}.{extension}", table.name))
                    .exists()
            );
        }
    }
    // Figures are plain numbers, without the words of the tables.
    let numbers = fs::read_to_string(out.join("tables/figures.csv")).unwrap();
    let mut rows = numbers.lines();
    let head: Vec<&str> = rows.next().unwrap().split(',').collect();
    let series = report.collection.series();
    assert_eq!(rows.clone().count(), 2 * series.len());
    for row in rows {
        let cells: Vec<&str> = row.split(',').collect();
        assert_eq!(cells.len(), head.len(), "{row}");
        let figures = &cells[head.iter().position(|&name| name == "tau").unwrap()..];
        assert!(
            figures.iter().all(|cell| cell.parse::<f64>().is_ok()),
            "{row}"
        );
        for ends in figures.chunks(3) {
            let number = |idx: usize| ends[idx].parse::<f64>().unwrap();
            assert!(
                number(1) <= number(0) + 1e-9 && number(0) <= number(2) + 1e-9,
                "{row}"
            );
        }
    }
    // Four plots per temperature and two for the target.
    assert_eq!(report.figures.len(), 2 * 4 + 2);
    for figure in &report.figures {
        let png = fs::read(out.join(format!("plots/{}.png", figure.name))).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 10_000);
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("All cells are complete"));
    let markdown = fs::read_to_string(out.join("report.md")).unwrap();
    for text in [&page, &markdown] {
        assert!(text.contains("GiB of memory") && text.contains("; version 0.1.0"));
    }
    let without_namespace = page.replace("http://www.w3.org/2000/svg", "");
    for external in ["http", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!without_namespace.contains(external), "{external}");
    }
}

#[test]
fn the_paper_stands_beside_the_targets_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = synthetic::settings(Method::Vispec, "gqa", 4);
    settings.target = "hub/Qwen2.5-VL-7B-Instruct".to_owned();
    write_cell(dir.path(), settings, 4);
    let report = report(dir.path());
    let main = report.tables[0].to_markdown();
    let row = "| Qwen2.5-VL-7B-Instruct | 0 | ViSpec (paper) | 2.30 / 1.91 | 2.24 / 1.80 | 3.24 |";
    assert!(main.contains(row), "{main}");
}

#[test]
fn cells_that_are_missing_something_come_first() {
    let dir = tempfile::tempdir().unwrap();
    write_cell(dir.path(), synthetic::settings(Method::None, "done", 3), 3);
    write_cell(dir.path(), synthetic::settings(Method::None, "half", 8), 3);
    let old = dir.path().join("old");
    fs::create_dir(&old).unwrap();
    fs::write(old.join(HEADER_FILE), "{\"schema_version\": 0}").unwrap();
    let without_header = dir.path().join("without-header");
    fs::create_dir(&without_header).unwrap();
    fs::write(without_header.join(RECORDS_FILE), "").unwrap();
    let report = report(dir.path());
    let lines = report.incomplete();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[2].contains("without-header/cell.json"), "{lines:?}");
    assert!(lines[0].contains("3 of 8 prompts"), "{lines:?}");
    assert!(
        lines[1].contains("schema version 0, expected 1"),
        "{lines:?}"
    );
}

#[test]
fn a_cell_that_was_copied_is_not_counted_twice() {
    let dir = tempfile::tempdir().unwrap();
    let settings = synthetic::settings(Method::None, "a", 3);
    write_cell(&dir.path().join("first"), settings.clone(), 3);
    write_cell(&dir.path().join("second"), settings, 3);
    let report = report(dir.path());
    assert_eq!(report.collection.cells.len(), 1);
    assert!(report.incomplete()[0].contains("another directory"));
}

#[test]
fn shards_are_added_up_and_missing_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let settings = synthetic::settings(Method::None, "a", 9);
    let shard = |name, index, count| {
        let dir = dir.path().join(name);
        write_shard(&dir, settings.clone(), 9, Shard { index, count });
    };
    shard("a", 0, 3);
    shard("c", 2, 3);
    let lines = report(dir.path()).incomplete();
    let name = settings.directory_name();
    assert_eq!(lines, [format!("{name}: no records of shard 1/3")]);
    shard("b", 1, 3);
    let whole = report(dir.path());
    assert!(whole.incomplete().is_empty());
    let series = whole.collection.series();
    assert_eq!((series.len(), series[0].pooled.records()), (1, 9));

    // Prompts are not counted twice if a cell was sharded in two ways.
    shard("z", 0, 2);
    let twice = report(dir.path());
    assert_eq!(twice.collection.series()[0].pooled.records(), 9);
    let lines = twice.incomplete();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("has prompts of shard"), "{lines:?}");
}

#[test]
fn nothing_to_report_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = Report::of(dir.path(), Predictions::None).unwrap_err();
    assert!(matches!(error, ReportError::NoCells { .. }), "{error}");
}

/// Returns left, right, top and bottom of a text, from its attributes and a mean letter width.
fn text_box(element: &str) -> (f64, f64, f64, f64) {
    let number = |name: &str| -> f64 {
        let start = element.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
        let text = &element[start..];
        text[..text.find('"').unwrap()].parse().unwrap()
    };
    let (x, y, size) = (number("x"), number("y"), number("font-size"));
    let text = &element[element.find('>').unwrap() + 1..element.find("</text>").unwrap()];
    // 0.53 of the font size is the mean width of Inter's letters in these labels.
    let width = text.chars().count() as f64 * size * 0.53;
    let left = match () {
        () if element.contains("\"middle\"") => x - width / 2.0,
        () if element.contains("\"end\"") => x - width,
        () => x,
    };
    (left, left + width, y - size * 0.75, y + size * 0.05)
}

#[test]
fn labels_are_inside_of_their_plot_and_do_not_overlap() {
    let dir = tempfile::tempdir().unwrap();
    write_cells(dir.path());
    for figure in report(dir.path()).figures {
        let svg = figure.to_svg(Theme::File);
        let texts: Vec<_> = svg
            .lines()
            .filter(|line| line.starts_with("<text") && !line.contains("rotate"))
            .map(|line| (text_box(line), line))
            .collect();
        assert!(texts.len() > 5);
        for (idx, (a, first)) in texts.iter().enumerate() {
            assert!(a.0 >= 0.0 && a.1 <= 860.0, "{}: {first}", figure.name);
            // The rotated label of the vertical axis lies left of 26.
            let is_number_of_axis = first.contains("\"end\"") && svg.contains("rotate");
            assert!(!is_number_of_axis || a.0 > 26.0, "{}: {first}", figure.name);
            for (b, second) in &texts[idx + 1..] {
                let apart = a.1 <= b.0 || b.1 <= a.0 || a.3 <= b.2 || b.3 <= a.2;
                assert!(apart, "{}:\n{first}\n{second}", figure.name);
            }
        }
    }
}

#[test]
fn text_is_drawn_without_the_fonts_of_the_system() {
    let drawing = |text: &str| {
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"200\" height=\"40\" \
             font-family=\"Inter\">{text}</svg>"
        );
        to_png("text", &svg).unwrap()
    };
    let regular = drawing("<text x=\"5\" y=\"30\" font-size=\"20\">Speed-up</text>");
    let strong =
        drawing("<text x=\"5\" y=\"30\" font-size=\"20\" font-weight=\"600\">Speed-up</text>");
    assert!(regular != drawing(""));
    assert!(strong != regular, "the heavier font is found");
    assert!(matches!(
        to_png("none", "no drawing"),
        Err(ReportError::Raster { .. })
    ));
}
