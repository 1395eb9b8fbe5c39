"""Play a 4D scene in a browser: `write_player` writes a page, `player_fragment` makes a piece of one."""

from worldline.formats.player.page import player_fragment, write_player

__all__ = ["player_fragment", "write_player"]
