import pytest

from dmkeras.serving.embedded import model_config
from dmkeras.serving.embedded.model_config import ModelConfig
from dmkeras.serving.errors import RequestError, ServingError

TEXT = """
model_config_list {
  config { name: "one" base_path: "/models/one" model_platform: "tensorflow" }
  config {
    name: "two" base_path: "/models/two" model_platform: "tensorflow"
    model_version_policy { specific { versions: 3 versions: 7 } }
    version_labels { key: "stable" value: 3 }
    version_labels { key: "canary" value: 7 }
  }
  config { name: "three" base_path: "/models/three" model_type: TENSORFLOW model_version_policy { all {} } }
  config {
    name: "four" base_path: "/models/four" model_platform: "tensorflow"
    model_version_policy { latest { num_versions: 2 } }
  }
  config { name: "five" base_path: "/models/five" model_platform: "tensorflow" model_version_policy { latest {} } }
}
"""


def test_a_models_config_says_which_models_versions_and_labels():
    assert model_config.parse(TEXT) == [
        ModelConfig("one", "/models/one", ("latest", 1), {}),
        ModelConfig("two", "/models/two", ("specific", (3, 7)), {"stable": 3, "canary": 7}),
        ModelConfig("three", "/models/three", ("all", None), {}),
        ModelConfig("four", "/models/four", ("latest", 2), {}),
        ModelConfig("five", "/models/five", ("latest", 1), {}),
    ]


def test_an_empty_list_is_no_models_and_an_empty_file_says_nothing():
    assert model_config.parse("model_config_list {}") == []
    assert model_config.parse("# being written") is None


def entry(fields):
    return f'model_config_list {{ config {{ name: "m" base_path: "/m" {fields} }} }}'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model_config_lst {}", "ModelServerConfig: 1:1 .*model_config_lst"),
        (
            'model_config_list { config { name: "r" base_path: "m/r" model_platform: "tensorflow" } }',
            "Expected model r to have an absolute path or URI; got base_path\\(\\)=m/r",
        ),
        (
            'model_config_list { config { name: "r" base_path: "/r" model_platform: "tensorflow" } '
            'config { name: "r" base_path: "/s" model_platform: "tensorflow" } }',
            "Illegal to list model r multiple times in config list",
        ),
        ('model_config_list { config { base_path: "/r" model_platform: "tensorflow" } }', "has no name"),
        (entry(""), "Illegal setting neither ModelServerConfig::model_type"),
        (entry('model_type: TENSORFLOW model_platform: "tensorflow"'), "Illegal setting both"),
        (entry("model_type: OTHER"), "model_type choice 2 not supported"),
        (entry('model_platform: "caffe"'), "Model m requests unsupported platform caffe"),
        (entry('model_platform: "tensorflow" model_version_policy { specific {} }'), "has version policy"),
    ],
)
def test_what_tf_serving_refuses_is_refused_in_its_words(text, told):
    with pytest.raises(RequestError, match=told):
        model_config.parse(text)


def test_a_custom_configuration_is_no_list_of_models():
    with pytest.raises(ServingError, match="only legal to transition from one ModelConfigList") as caught:
        model_config.parse("custom_model_config {}")
    assert caught.value.code == "FAILED_PRECONDITION"


@pytest.mark.parametrize("policy", [("latest", 0), ("newest", 1), ("specific", ()), ("specific", ("1",)), ("all", 2)])
def test_a_policy_that_is_none_is_refused(policy):
    with pytest.raises(RequestError, match="model m has version policy"):
        model_config.check([ModelConfig("m", "/m", policy)])
