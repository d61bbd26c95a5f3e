//! A page of metrics: families with their samples, written by the `prometheus` crate.

use jiff::Timestamp;
use prometheus::core::Collector as _;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Histogram, TextEncoder};

/// Families in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Page(Vec<MetricFamily>);

/// Seconds since 1970, the form in which Prometheus wants moments.
pub(super) fn moment(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

/// The same, and 0 for what has not been yet.
pub(super) fn moment_or_zero(at: Option<Timestamp>) -> f64 {
    at.map_or(0.0, moment)
}

/// Whole numbers beyond 2^53 lose their last digits, which nobody reads.
#[expect(clippy::cast_precision_loss, reason = "Prometheus knows no other numbers")]
pub(super) const fn number(count: u64) -> f64 {
    count as f64
}

impl Page {
    /// Values that rise and fall.
    pub(super) fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'a str, &'a str); N], f64)>,
    ) {
        self.add(name, help, MetricType::GAUGE, samples);
    }

    /// One such value.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [([], value)]);
    }

    /// Values that only rise.
    pub(super) fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = ([(&'a str, &'a str); N], u64)>,
    ) {
        let samples = samples.into_iter().map(|(labels, count)| (labels, number(count)));
        self.add(name, help, MetricType::COUNTER, samples);
    }

    /// One such value.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, [([], value)]);
    }

    /// What a histogram has observed.
    pub(super) fn histogram(&mut self, histogram: &Histogram) {
        self.0.extend(histogram.collect());
    }

    fn add<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = ([(&'a str, &'a str); N], f64)>,
    ) {
        let metrics: Vec<_> = samples.into_iter().map(|(labels, value)| sample(labels, kind, value)).collect();
        // A family without a sample cannot be written.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    /// The text format, version 0.0.4.
    pub(super) fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.0)
    }
}

fn sample<const N: usize>(labels: [(&str, &str); N], kind: MetricType, value: f64) -> Metric {
    let label = |(name, value): (&str, &str)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value.to_owned());
        label
    };
    let mut metric = Metric::default();
    metric.set_label(labels.into_iter().map(label).collect());
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_customers_choose_cannot_break_the_page() {
        let mut page = Page::default();
        page.gauges("a_ratio", "Of b\nand c.", [([("name", "x\"} 1\ny 2\\")], 0.5)]);
        page.counters("empty_total", "None.", [] as [([(&str, &str); 1], u64); 0]);
        page.counter("b_total", "Of d.", 12_345_678_901);
        assert_eq!(
            page.text().unwrap(),
            "# HELP a_ratio Of b\\nand c.\n# TYPE a_ratio gauge\na_ratio{name=\"x\\\"} 1\\ny 2\\\\\"} 0.5\n\
             # HELP b_total Of d.\n# TYPE b_total counter\nb_total 12345678901\n"
        );
    }

    #[test]
    fn a_moment_is_seconds_since_1970() {
        assert!((moment("2026-11-24T10:00:00.5Z".parse().unwrap()) - 1_795_514_400.5).abs() < 0.001);
        assert!(moment_or_zero(None).abs() < f64::EPSILON);
    }
}
