//! Compares the output of templates with Jinja2 3.1.6 in the environment of transformers.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use vispec_processor::{ChatTemplate, GenerationPrompt, Messages, ProcessorError, SpecialTokens};

fn render(source: &str) -> Result<String, ProcessorError> {
    let template = ChatTemplate::new("test", source, SpecialTokens::default())?;
    template.render(&Messages::from_prompt(None, "Hi", 0), GenerationPrompt::Add)
}

#[track_caller]
fn assert_rendered(cases: &[(&str, &str)]) {
    for (source, expected) in cases {
        assert_eq!(render(source).unwrap(), *expected, "{source}");
    }
}

#[test]
fn line_ends_of_any_system_are_line_feeds() {
    for end in ["\n", "\r\n", "\r"] {
        let lines = [
            "{% if true %}",
            "a",
            "{{ 'b",
            "c' }}",
            "{% endif %}",
            "d",
            "",
        ];
        assert_eq!(render(&lines.join(end)).unwrap(), "a\nb\nc\nd", "{end:?}");
    }
    // Escapes are not changed.
    assert_eq!(render(r"{{ 'a\r\nb' }}").unwrap(), "a\r\nb");
}

#[test]
fn lists_and_dictionaries_are_written_as_python_writes_them() {
    assert_rendered(&[
        ("{{ ['a'] }}", "['a']"),
        ("{{ [none, true, 1.5, 2] }}", "[None, True, 1.5, 2]"),
        (
            "{{ {'a': {'b': [1, 'c']}, 2: none} }}",
            "{'a': {'b': [1, 'c']}, 2: None}",
        ),
        ("{{ [] }}{{ {} }}", "[]{}"),
        ("{{ [no_such_name] }}{{ no_such_name }}", "[Undefined]"),
        (
            r#"{{ ["it's", 'say "a"', 'it\'s "b"'] }}"#,
            r#"["it's", 'say "a"', 'it\'s "b"']"#,
        ),
        (r"{{ ['a\n\t\r\\b'] }}", r"['a\n\t\r\\b']"),
        (
            "{{ ['é😀', '\u{301}', '\u{200b}', '\u{a0}', '\u{7f}', '\u{e0001}'] }}",
            r"['é😀', '́', '\u200b', '\xa0', '\x7f', '\U000e0001']",
        ),
        ("{{ 'a,b'.split(',') }}", "['a', 'b']"),
    ]);
}

#[test]
fn numbers_are_written_as_python_writes_them() {
    assert_rendered(&[
        ("{{ 1.0 }} {{ 1e16 }} {{ 1.5e300 }}", "1.0 1e+16 1.5e+300"),
        (
            "{{ 1e-7 }} {{ 0.0001 }} {{ 0.1 + 0.2 }}",
            "1e-07 0.0001 0.30000000000000004",
        ),
        (
            "{{ 1e15 }} {{ 12345678901234567 }}",
            "1000000000000000.0 12345678901234567",
        ),
    ]);
}

#[test]
fn filters_do_what_those_of_jinja_do() {
    assert_rendered(&[
        (
            "{{ 2.5 | round }} {{ 3.5 | round }} {{ -2.5 | round }}",
            "2.0 4.0 -2.0",
        ),
        (
            "{{ 2.675 | round(2) }} {{ 0.125 | round(2) }} {{ 2 | round }}",
            "2.67 0.12 2",
        ),
        (
            "{{ 42.55 | round(1, 'floor') }} {{ 42.55 | round(1, 'ceil') }}",
            "42.5 42.6",
        ),
        (
            "{{ 42 | round(method='ceil') }} {{ 0.5 | round | int }}",
            "42.0 0",
        ),
        (
            "{{ [1.0, ['x'], none, true] | join(',') }}",
            "1.0,['x'],None,True",
        ),
        (
            "{{ ['a', 'b'] | join }}{{ 'ab' | join('-') }}{{ no_such_name | join }}",
            "aba-b",
        ),
        (
            "{{ ['a'] | string ~ none | string ~ 2.0 | string }}",
            "['a']None2.0",
        ),
    ]);
}

#[test]
fn formatting_with_percent_is_refused() {
    let error = render("{{ '%s' % 'a' }}").unwrap_err();
    assert!(
        matches!(error, ProcessorError::TemplateRender { .. }),
        "{error}"
    );
}

#[test]
fn text_of_values_is_bounded() {
    let doubled = "{% set n = namespace(x=['a']) %}{% for i in range(50) %}{% set n.x = [n.x, n.x] %}{% endfor %}";
    let nested =
        "{% set n = namespace(x=[]) %}{% for i in range(90) %}{% set n.x = [n.x] %}{% endfor %}";
    for values in [doubled, nested] {
        for end in ["{{ n.x }}", "{{ n.x | string }}", "{{ n.x | join }}"] {
            let error = render(&format!("{values}{end}")).unwrap_err();
            assert!(
                matches!(error, ProcessorError::TemplateRender { .. }),
                "{error}"
            );
        }
    }
}
