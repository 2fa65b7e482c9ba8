//! Plots as inline SVG: two axes, and lines or bars.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
/// Room for what is written at the axes.
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 16.0;
const RIGHT: f64 = 16.0;
/// Parts into which an axis is divided, about.
const TICKS: f64 = 5.0;
/// Told apart also without seeing colours: Okabe and Ito's, without yellow.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Something with a name, point by point.
#[derive(Clone, Debug)]
pub(super) struct Series {
    /// As in the legend.
    pub(super) name: String,
    /// From left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over a number.
pub(super) fn lines(title: &str, x: &str, y: &str, series: &[Series]) -> String {
    let all = || series.iter().flat_map(|s| &s.points);
    let (x_top, x_step) = scale(all().map(|p| p.0).fold(0.0, f64::max));
    let (y_top, y_step) = scale(all().map(|p| p.1).fold(0.0, f64::max));
    let mut svg = begin(title, x, y, y_top, y_step);
    let mut at = 0.0;
    while at <= x_top * 1.0001 {
        text(&mut svg, across(at / x_top), HEIGHT - BOTTOM + 18.0, "middle", &short(at));
        at += x_step;
    }
    for (i, s) in series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points: Vec<_> = s.points.iter().map(|p| (across(p.0 / x_top), up(p.1 / y_top), *p)).collect();
        let path = points.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
        _ = writeln!(
            svg,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        );
        for (x, y, (a, b)) in points {
            let tip = escape(&format!("{}: {b:.3} at {}", s.name, short(a)));
            _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{tip}</title></circle>"
            );
        }
    }
    svg + "</svg>\n" + &legend(series.iter().map(|s| s.name.as_str()))
}

/// Groups of bars, one in each group a series; what has no value has no bar.
pub(super) fn bars(
    title: &str,
    x: &str,
    y: &str,
    groups: &[String],
    series: &[(String, Vec<Option<f64>>)],
) -> String {
    let (top, step) = scale(series.iter().flat_map(|s| &s.1).flatten().copied().fold(0.0, f64::max));
    let mut svg = begin(title, x, y, top, step);
    let group = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
    let bar = group * 0.7 / series.len().max(1) as f64;
    for (g, name) in groups.iter().enumerate() {
        let left = LEFT + group * (g as f64 + 0.15);
        text(&mut svg, left + group * 0.35, HEIGHT - BOTTOM + 18.0, "middle", name);
        for (i, (what, values)) in series.iter().enumerate() {
            let Some(value) = values.get(g).copied().flatten() else { continue };
            let (x, y) = (left + bar * i as f64, up(value / top));
            let (height, colour) = (HEIGHT - BOTTOM - y, COLOURS[i % COLOURS.len()]);
            let tip = escape(&format!("{what}, {name}: {value:.3}"));
            _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"><title>{tip}</title></rect>",
                bar - 2.0
            );
            text(&mut svg, x + bar / 2.0, y - 3.0, "middle", &short(value));
        }
    }
    svg + "</svg>\n" + &legend(series.iter().map(|s| s.0.as_str()))
}

/// The frame, the vertical axis with its lines, and the axes' names.
fn begin(title: &str, x: &str, y: &str, top: f64, step: f64) -> String {
    let title = escape(title);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\" xmlns=\"http://www.w3.org/2000/svg\">\n<title>{title}</title>\n"
    );
    let mut at = 0.0;
    while at <= top * 1.0001 {
        let y = up(at / top);
        let right = WIDTH - RIGHT;
        _ = writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" class=\"grid\"/>");
        text(&mut svg, LEFT - 8.0, y + 4.0, "end", &short(at));
        at += step;
    }
    text(&mut svg, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, "middle", x);
    let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
    _ = writeln!(
        svg,
        "<text x=\"16\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {middle})\">{}</text>",
        escape(y)
    );
    svg
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = escape(words);
    _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let item = |(i, name): (usize, &str)| {
        let colour = COLOURS[i % COLOURS.len()];
        format!("<span><i style=\"background:{colour}\"></i>{}</span>", escape(name))
    };
    format!("<p class=\"legend\">{}</p>\n", names.enumerate().map(item).collect::<String>())
}

fn across(share: f64) -> f64 {
    LEFT + share * (WIDTH - LEFT - RIGHT)
}

fn up(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
}

/// The end of an axis that holds `most`, and the distance of its ticks: 1, 2 or 5 times a power of ten.
fn scale(most: f64) -> (f64, f64) {
    if !(most.is_finite() && most > 0.0) {
        return (1.0, 0.2);
    }
    let rough = most / TICKS;
    let ten = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|n| n * ten >= rough * 0.9999).unwrap_or(10.0) * ten;
    ((most / step * 0.9999).ceil() * step, step)
}

/// A number in few characters.
fn short(n: f64) -> String {
    let (n, unit) = match n.abs() {
        a if a >= 1e6 => (n / 1e6, "M"),
        a if a >= 1e4 => (n / 1e3, "k"),
        _ => (n, ""),
    };
    let digits = format!("{n:.2}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// For text and attributes of HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            ["0.5", "12k", "1.5M", "9999"].map(String::from),
            [0.5, 12_000.0, 1.5e6, 9999.0].map(short)
        );
    }

    #[test]
    fn everything_is_inside_the_frame() {
        let series = [Series { name: "a <b>".into(), points: vec![(0.0, 0.0), (97_531.0, 13.7)] }];
        let svg = lines("t", "x", "y", &series);
        assert!(svg.contains("a &lt;b&gt;") && !svg.contains("<b>"));
        for attribute in ["cx=\"", "cy=\""] {
            for (i, _) in svg.match_indices(attribute) {
                let rest = &svg[i + 4..];
                let n: f64 = rest[..rest.find('"').unwrap()].parse().unwrap();
                assert!((0.0..=WIDTH).contains(&n), "{n}");
            }
        }
    }

    proptest! {
        #[test]
        fn an_axis_holds_its_numbers_with_few_ticks(most in 1e-6..1e12) {
            let (top, step) = scale(most);
            prop_assert!(top >= most * 0.999 && top < most + step * 1.01, "{top} for {most}");
            prop_assert!((2.0..=6.0).contains(&(top / step).round()));
        }
    }
}
