"""Labels, tracks and clips in the file formats that training code, driving toolkits and robot learning read."""
