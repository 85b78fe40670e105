//! What settings are refused, and by the name of which field.

use proptest::prelude::*;
use proptest::sample::select;
use pulse::engine::{
    FAILURES_RANGE, IN_FLIGHT_RANGE, INTERVAL_RANGE, InstanceType, Millis, Settings, SettingsDraft,
    SettingsField as Field, TIMEOUT_RANGE,
};

type Span = (Field, fn(&mut SettingsDraft) -> &mut Millis);
type Count = (Field, fn(&mut SettingsDraft) -> &mut u32);

const SPANS: [Span; 12] = [
    (Field::BaseInterval, |draft| &mut draft.base_interval),
    (Field::MinInterval, |draft| &mut draft.min_interval),
    (Field::MaxInterval, |draft| &mut draft.max_interval),
    (Field::BackoffInitial, |draft| &mut draft.backoff.initial),
    (Field::BackoffMax, |draft| &mut draft.backoff.max),
    (Field::BreakerOpenInitial, |draft| &mut draft.breaker.open_initial),
    (Field::BreakerOpenMax, |draft| &mut draft.breaker.open_max),
    (Field::DeadLetterPermanentRecheck, |draft| &mut draft.dead_letter.permanent_recheck),
    (Field::DeadLetterTransientRecheckInitial, |draft| &mut draft.dead_letter.transient_recheck_initial),
    (Field::DeadLetterTransientRecheckMax, |draft| &mut draft.dead_letter.transient_recheck_max),
    (Field::Interval(InstanceType::Pbs), |draft| draft.types[InstanceType::Pbs].interval.insert(Millis::ZERO)),
    (Field::Timeout(InstanceType::Tcp), |draft| &mut draft.types[InstanceType::Tcp].timeout),
];

const COUNTS: [Count; 4] = [
    (Field::MaxInFlight, |draft| &mut draft.max_in_flight),
    (Field::MaxInFlightPerHost, |draft| &mut draft.max_in_flight_per_host),
    (Field::BreakerFailureThreshold, |draft| &mut draft.breaker.failure_threshold),
    (Field::DeadLetterAfterTransientFailures, |draft| &mut draft.dead_letter.after_transient_failures),
];

/// What must not be above what.
const ORDERED: [(usize, usize); 5] = [(1, 0), (0, 2), (3, 4), (5, 6), (8, 9)];

/// The fields that the refusal of `draft` names, each once; none if it is taken.
fn refused(draft: SettingsDraft) -> Vec<Field> {
    let Err(errors) = draft.validate() else { return Vec::new() };
    let mut fields: Vec<Field> = errors.iter().flat_map(|error| error.fields()).collect();
    fields.sort_unstable();
    fields.dedup();
    fields
}

fn range_of(field: Field) -> std::ops::RangeInclusive<Millis> {
    if matches!(field, Field::Timeout(_)) { TIMEOUT_RANGE } else { INTERVAL_RANGE }
}

proptest! {
    #[test]
    fn a_span_out_of_its_range_is_refused_by_its_name(
        (field, at) in select(SPANS.to_vec()), below in 0u64..100, above in 1u64..1_000_000,
    ) {
        for value in [Millis::new(below), *range_of(field).end() + Millis::new(above)] {
            let mut draft = SettingsDraft::default();
            *at(&mut draft) = value;
            prop_assert!(refused(draft).contains(&field), "{field} of {value}");
        }
    }

    #[test]
    fn a_count_out_of_its_range_is_refused_by_its_name_alone((field, at) in select(COUNTS.to_vec()), above in 1u32..1_000) {
        let in_flight = matches!(field, Field::MaxInFlight | Field::MaxInFlightPerHost);
        let range = if in_flight { IN_FLIGHT_RANGE } else { FAILURES_RANGE };
        for (value, expected) in [(0, vec![field]), (range.end() + above, vec![field]), (*range.end(), vec![])] {
            let mut draft = SettingsDraft::default();
            *at(&mut draft) = value;
            prop_assert_eq!(refused(draft), expected, "{} of {}", field, value);
        }
    }

    #[test]
    fn two_that_are_the_wrong_way_round_are_both_named(
        (lower, upper) in select(ORDERED.to_vec()), value in 200u64..50_000, more in 1u64..50_000,
    ) {
        // The pair alone is looked at: what else is compared with one of them is as wide as can be.
        let (min_interval, max_interval) = (*INTERVAL_RANGE.start(), *INTERVAL_RANGE.end());
        let mut draft = SettingsDraft { min_interval, max_interval, ..SettingsDraft::default() };
        *SPANS[upper].1(&mut draft) = Millis::new(value);
        *SPANS[lower].1(&mut draft) = Millis::new(value + more);
        let mut named = vec![SPANS[lower].0, SPANS[upper].0];
        named.sort_unstable();
        prop_assert_eq!(refused(draft), named);
    }
}

#[test]
fn every_span_may_be_as_short_and_as_long_as_its_range() {
    for (end, draft) in [INTERVAL_RANGE.start(), INTERVAL_RANGE.end()].into_iter().map(|end| (end, all(*end))) {
        assert_eq!(refused(draft), [], "{end}");
    }
    for (field, at) in SPANS.into_iter().filter(|(field, _)| matches!(field, Field::Interval(_) | Field::Timeout(_))) {
        for end in [*range_of(field).start(), *range_of(field).end()] {
            let mut draft = SettingsDraft::default();
            *at(&mut draft) = end;
            assert_eq!(refused(draft), [], "{field} of {end}");
        }
    }
}

#[test]
fn the_bounds_are_the_documented_ones() {
    assert_eq!(INTERVAL_RANGE, Millis::new(100)..=Millis::from_secs(24 * 60 * 60));
    assert_eq!(TIMEOUT_RANGE, Millis::new(100)..=Millis::from_secs(10 * 60));
    assert_eq!((IN_FLIGHT_RANGE, FAILURES_RANGE), (1..=100_000, 1..=1_000));
}

#[test]
fn settings_come_back_from_json_as_they_were_and_broken_ones_do_not_come_back() {
    let draft = SettingsDraft { base_interval: Millis::from_secs(17), max_in_flight: 5, ..SettingsDraft::default() };
    let settings = draft.validate().unwrap();
    let mut json = serde_json::to_value(&settings).unwrap();
    assert_eq!(serde_json::from_value::<Settings>(json.clone()).unwrap(), settings);
    json["max_in_flight"] = 0.into();
    let refusal = serde_json::from_value::<Settings>(json).unwrap_err().to_string();
    assert!(refusal.contains("max_in_flight is 0"), "{refusal}");
}

/// Settings whose spans are all `value`, but for the timeouts.
fn all(value: Millis) -> SettingsDraft {
    let mut draft = SettingsDraft::default();
    for (_, at) in SPANS.into_iter().filter(|(field, _)| !matches!(field, Field::Timeout(_))) {
        *at(&mut draft) = value;
    }
    draft
}
