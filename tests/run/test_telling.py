"""What of a run is said in a line, and read from a file that grows."""

import json

from reports import finished_round
from server.run.telling import News

DISK = {"event": "waiting", "sites": {"centerB": "its disk is full"}}


def test_news_are_what_is_added_from_now_on_each_line_once_and_whole(tmp_path):
    path = tmp_path / "events.jsonl"
    assert News(path).read() == []
    path.write_text(json.dumps(finished_round(1)) + "\n")
    news = News(path)
    assert news.read() == []
    with path.open("a") as file:
        file.write(json.dumps(DISK) + "\n" + '{"event": "of a later version"}\n' + json.dumps(finished_round(2))[:20])
        file.flush()
        assert news.read() == ["  waiting for centerB: its disk is full"]
        assert news.read() == []
        file.write(json.dumps(finished_round(2))[20:] + "\n")
    assert news.read() == ["round 2: 2 sites, 1.5 s"]
    path.write_text(json.dumps(DISK) + "\n")  # of a run that was begun anew
    assert news.read() == ["  waiting for centerB: its disk is full"]
    path.unlink()
    assert news.read() == []
