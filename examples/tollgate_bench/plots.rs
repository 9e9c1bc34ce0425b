//! A run as pictures (SVG).

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::measure::{Cell, Measured, Sample};
use crate::results::Results;

const SIZE: (u32, u32) = (900, 440);
/// Where the names of lines stand, from the left.
const LEGEND: u32 = 720;
const FONT: &str = "sans-serif";
/// One colour a contender, in the order of a scenario; dark enough to be read on white.
const COLOURS: [RGBColor; 16] = [
    RGBColor(90, 90, 90),
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 94, 240),
    RGBColor(128, 64, 0),
    RGBColor(170, 170, 0),
    RGBColor(0, 0, 0),
    RGBColor(220, 20, 60),
    RGBColor(0, 90, 50),
    RGBColor(0, 140, 150),
    RGBColor(150, 20, 90),
    RGBColor(100, 110, 200),
];
/// What fills most of a bar, and what stands behind it.
const SERVICE: RGBColor = RGBColor(0, 114, 178);
const REDIS: RGBColor = RGBColor(213, 94, 0);
/// Shares of answers that the latency plot shows, as fractions.
const SHARES: [f64; 9] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999];

/// A picture that was written, and what it shows.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) file: &'static str,
    pub(crate) about: &'static str,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Points = Vec<(f64, f64)>;

/// Draws whatever was measured into `folder`.
pub(crate) fn draw(folder: &Path, results: &Results) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    let mut add = |file, about, draw: &dyn Fn(&Area<'_>) -> Result<()>| -> Result<()> {
        let path = folder.join(file);
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(told)?;
        draw(&area)?;
        area.present().map_err(told)?;
        pictures.push(Picture { file, about });
        Ok(())
    };
    if let Some(measured) = results.scenario("clients") {
        add(
            "cpu.svg",
            "CPU time for each request: the service blue, Redis orange",
            &|area| {
                let parts = |cell: &Cell| {
                    let middle =
                        |of: fn(&Sample) -> f64| cell.median(of).map_or(0.0, |it| it.middle);
                    (middle(|it| it.service_us), middle(|it| it.redis_us))
                };
                bars(
                    area,
                    measured,
                    "microseconds of CPU for each request",
                    &parts,
                )
            },
        )?;
        add("throughput.svg", "Requests a second", &|area| {
            let parts = |cell: &Cell| {
                (
                    cell.median(Sample::per_second).map_or(0.0, |it| it.middle),
                    0.0,
                )
            };
            bars(area, measured, "requests a second", &parts)
        })?;
        add("latency.svg", "Latency of the slowest answers", &|area| {
            latency(area, measured)
        })?;
    }
    let cpu = |cell: &Cell| cell.median(Sample::cpu_us).map(|it| it.middle);
    if let Some(measured) = results.scenario("keys") {
        let x = |cell: &Cell| cell.subject.store.map(|keys| f64::from(keys).log10());
        let lines = series(measured, &x, &cpu);
        add(
            "keys.svg",
            "CPU time for each request by the number of keys",
            &|area| {
                let label = |x: &f64| format!("{:.0}", 10_f64.powf(*x));
                chart(
                    area,
                    &lines,
                    ("keys", "microseconds of CPU for each request"),
                    &label,
                )
            },
        )?;
    }
    if let Some(measured) = results.scenario("instances") {
        let x = |cell: &Cell| u32::try_from(cell.subject.instances).ok().map(f64::from);
        let rate = |cell: &Cell| cell.median(Sample::per_second).map(|it| it.middle);
        let lines = series(measured, &x, &rate);
        add(
            "instances.svg",
            "Requests a second by the number of instances behind nginx",
            &|area| chart(area, &lines, ("instances", "requests a second"), &whole),
        )?;
    }
    if let Some(measured) = results.scenario("charges") {
        let x = |cell: &Cell| {
            u32::try_from(cell.subject.contender.charges()?)
                .ok()
                .map(f64::from)
        };
        let lines = series(measured, &x, &cpu);
        add(
            "charges.svg",
            "CPU time for each request by the number of its limits",
            &|area| {
                let axes = ("limits a request", "microseconds of CPU for each request");
                chart(area, &lines, axes, &whole)
            },
        )?;
    }
    Ok(pictures)
}

/// Contenders as horizontal bars, the first on top; the second part stands behind the first.
fn bars(
    area: &Area<'_>,
    measured: &Measured,
    axis: &str,
    parts: &dyn Fn(&Cell) -> (f64, f64),
) -> Result<()> {
    let cells: Vec<&Cell> = measured
        .cells
        .iter()
        .filter(|cell| !cell.samples.is_empty())
        .collect();
    let most = cells
        .iter()
        .map(|cell| parts(cell))
        .map(|(a, b)| a + b)
        .fold(1.0, f64::max);
    let rows = i32::try_from(cells.len())?;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(150)
        .build_cartesian_2d(0.0..most * 1.12, (0..rows).into_segmented())
        .map_err(told)?;
    let name = |row: &SegmentValue<i32>| match row {
        SegmentValue::CenterOf(row) => {
            let from_top = usize::try_from(rows - 1 - row).unwrap_or(usize::MAX);
            cells
                .get(from_top)
                .map_or(String::new(), |cell| cell.subject.name())
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(axis)
        .y_labels(cells.len())
        .y_label_formatter(&name)
        .label_style((FONT, 14))
        .draw()
        .map_err(told)?;
    for (cell, row) in cells.iter().zip((0..rows).rev()) {
        let (first, second) = parts(cell);
        let (from, to) = (SegmentValue::Exact(row), SegmentValue::Exact(row + 1));
        let mut bar = |from_x: f64, to_x: f64, colour: RGBColor| {
            let corners = [(from_x, from.clone()), (to_x, to.clone())];
            let mut bar = Rectangle::new(corners, colour.filled());
            bar.set_margin(3, 3, 0, 0);
            chart.draw_series([bar]).map(drop).map_err(told)
        };
        bar(0.0, first, SERVICE)?;
        bar(first, first + second, REDIS)?;
        let text = format!("{:.*}", usize::from(most < 1_000.0), first + second);
        let place = (first + second + most * 0.01, SegmentValue::CenterOf(row));
        let style = (FONT, 13).into_font().color(&BLACK);
        let style = style.pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Left,
            plotters::style::text_anchor::VPos::Center,
        ));
        chart
            .draw_series([Text::new(text, place, style)])
            .map_err(told)?;
    }
    Ok(())
}

/// How long answers took, from the quickest to the slowest, the tail drawn out.
fn latency(area: &Area<'_>, measured: &Measured) -> Result<()> {
    let line = |cell: &Cell| -> Points {
        let points = SHARES.iter().map(|&share| {
            let milliseconds = cell.latency.value_at_quantile(share) as f64 / 1e6;
            (tail(share), milliseconds.log10())
        });
        points.collect()
    };
    let cells = measured
        .cells
        .iter()
        .filter(|cell| !cell.samples.is_empty());
    let lines: Vec<(String, Points)> = cells
        .map(|cell| (cell.subject.name(), line(cell)))
        .collect();
    let (low, high) = lines
        .iter()
        .flat_map(|(_, points)| points)
        .fold((0.0_f64, 0.0_f64), |(low, high), (_, y)| {
            (low.min(*y), high.max(*y))
        });
    let (area, names) = area.split_horizontally(LEGEND);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..tail(0.9999), low..high + 0.1)
        .map_err(told)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("share of answers that were as quick")
        .y_desc("milliseconds")
        .x_labels(5)
        .x_label_formatter(&|x| format!("{}%", 100.0 - 100.0 / 10_f64.powf(*x)))
        .y_label_formatter(&|y| format!("{:.2}", 10_f64.powf(*y)))
        .label_style((FONT, 14))
        .draw()
        .map_err(told)?;
    for ((_, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(points.clone(), colour.stroke_width(2));
        chart.draw_series(line).map_err(told)?;
    }
    legend(&names, &lines)
}

/// Stretches the slow end: 0 %, 90 %, 99 % and 99.9 % stand equally far apart.
fn tail(share: f64) -> f64 {
    -(1.0 - share).log10()
}

/// One line a contender.
fn series(
    measured: &Measured,
    x: &dyn Fn(&Cell) -> Option<f64>,
    y: &dyn Fn(&Cell) -> Option<f64>,
) -> Vec<(String, Points)> {
    let mut lines: Vec<(String, Points)> = Vec::new();
    for cell in &measured.cells {
        let (Some(x), Some(y)) = (x(cell), y(cell)) else {
            continue;
        };
        let name = cell.subject.contender.family();
        match lines.iter_mut().find(|(of, _)| *of == name) {
            Some((_, points)) => points.push((x, y)),
            None => lines.push((name, vec![(x, y)])),
        }
    }
    lines
}

fn chart(
    area: &Area<'_>,
    lines: &[(String, Points)],
    (x_axis, y_axis): (&str, &str),
    label: &dyn Fn(&f64) -> String,
) -> Result<()> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let left = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let right = points()
        .map(|point| point.0)
        .fold(f64::NEG_INFINITY, f64::max);
    let top = points().map(|point| point.1).fold(1.0, f64::max);
    if left >= right {
        return Err(anyhow!("a line needs two points"));
    }
    let (area, names) = area.split_horizontally(LEGEND);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(30)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(left..right, 0.0..top * 1.1)
        .map_err(told)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(x_axis)
        .y_desc(y_axis)
        .x_labels(4)
        .x_label_formatter(&label)
        .label_style((FONT, 14))
        .draw()
        .map_err(told)?;
    for ((_, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(points.clone(), colour.stroke_width(2)).point_size(3);
        chart.draw_series(line).map_err(told)?;
    }
    legend(&names, lines)
}

/// Names the lines, in their colours.
fn legend(area: &Area<'_>, lines: &[(String, Points)]) -> Result<()> {
    for (row, ((name, _), colour)) in (0..).zip(lines.iter().zip(COLOURS.iter().cycle())) {
        let y = 20 + row * 22;
        let line = PathElement::new([(0, y + 7), (20, y + 7)], colour.stroke_width(3));
        area.draw(&line).map_err(told)?;
        let text = Text::new(name.clone(), (28, y), (FONT, 14));
        area.draw(&text).map_err(told)?;
    }
    Ok(())
}

fn whole(number: &f64) -> String {
    format!("{number:.0}")
}

/// Errors of drawing borrow what was drawn on.
fn told(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a picture cannot be drawn: {error}")
}
