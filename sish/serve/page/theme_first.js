// Before anything is painted: the theme that was chosen in this browser. theme.js offers the choice.
{
  const chosen = localStorage.getItem("sish-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
