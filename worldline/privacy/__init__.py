"""What keeps people out of exported pictures: faces are found, boxes are made unrecognisable."""
