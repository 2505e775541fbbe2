"""The photographs of scikit-learn."""

from encdec_train.data.sources.photograph import Photograph, PhotographConfig, Picture


def test_one_picture_is_both_splits():
    china, flower = (Photograph(PhotographConfig(picture=picture)) for picture in Picture)
    assert len(china("train")) == len(china("test")) == 1
    image = china("train")[0]["image"]
    assert image.size == (640, 427) and image.tobytes() == china("test")[0]["image"].tobytes()
    assert image.tobytes() != flower("train")[0]["image"].tobytes()
